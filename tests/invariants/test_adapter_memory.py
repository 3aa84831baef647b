"""What a layer keeps for backward where the base is frozen: no copy of a weight."""

from typing import Any

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from galpaca.data.collate import MicroBatch, collate_prompts
from galpaca.model.attention import PACKED_ATTENTION
from galpaca.model.compute import prepare_layers
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.families.opt import OPT
from galpaca.model.loss import target_logits
from galpaca.model.parts import materialize_all
from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.method import TuningMethod
from galpaca.model.tuning.qlora import QLora


def kept_bytes(method: TuningMethod, base: torch.dtype) -> tuple[int, int]:
    """Bytes kept for backward under bf16-mixed besides parameters, and the number of frozen values."""
    config = OPTConfig(
        vocab_size=512,
        hidden_size=256,
        word_embed_proj_dim=256,
        ffn_dim=1024,
        num_hidden_layers=24,
        num_attention_heads=4,
        max_position_embeddings=64,
        activation_function="gelu",
    )
    torch.manual_seed(0)
    with torch.device("meta"):
        model: Any = OPTForCausalLM(config).train()
    model.set_attn_implementation(PACKED_ATTENTION)
    prepare_layers(model, OPT, ComputeSpec())
    method.prepare(model, base)
    materialize_all(model, torch.device("cpu"))
    for name, parameter in model.named_parameters():
        parameter.data.zero_() if parameter.dtype == torch.uint8 else parameter.data.normal_(0, 0.02)
        parameter.requires_grad_(method.trained(name))
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no other takes its address
        return tensor

    examples: MicroBatch = collate_prompts([list(range(4, 20)), list(range(30, 60))])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        target_logits(model, examples).sum().backward()
    adapters = [parameter for name, parameter in model.named_parameters() if method.trained(name)]
    assert all(parameter.grad is not None for parameter in adapters)
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if not method.trained(name))
    return sum(kept.values()), sum(p.numel() for name, p in model.named_parameters() if not method.trained(name))


def test_a_16_bit_base_keeps_two_bytes_less_for_each_frozen_value() -> None:
    """A base in float32 is cast under autocast, and each cast copy is kept until backward. Not of what needs none:
    biases, norms, and what reads the embeddings, which have no gradient.
    """
    wide, num_frozen = kept_bytes(Lora(dropout=0.0), torch.float32)
    narrow, _ = kept_bytes(Lora(dropout=0.0), torch.bfloat16)
    assert wide - narrow == pytest.approx(2 * num_frozen, rel=0.02)


def test_a_4_bit_base_keeps_no_more_than_a_16_bit_one() -> None:
    narrow, _ = kept_bytes(Lora(dropout=0.0), torch.bfloat16)
    quantized, _ = kept_bytes(QLora(dropout=0.0), torch.bfloat16)
    # An input that is cast once for the product, and once for the adapter.
    assert quantized <= 1.3 * narrow
