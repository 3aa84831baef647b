"""What must be equal on a GPU too: packed and alone, one example and the change of another, scaled and not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import OPTConfig, OPTForCausalLM

from galpaca.data.collate import collate
from galpaca.data.examples import EncodedExamples, spans_behind
from galpaca.data.receipt import Receipt
from galpaca.data.sizes import Sizes
from galpaca.model.attention import PACKED_ATTENTION
from galpaca.model.compute import prepare_layers
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.families.opt import OPT
from galpaca.model.loss import nll_sum, target_logits
from galpaca.training.optimization import make_optimizer
from galpaca.training.specs import OptimizerSpec

_VOCABULARY, _PAD = 512, 1
# Relative to the largest gradient or logit; bfloat16 has 8 bits, and sums run in other orders.
HALF_TOLERANCE = 3e-2
FLOAT_TOLERANCE = 1e-4


def no_leak(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Changing a token changes no bit of another example's logits; over random packings."""
    generator = np.random.default_rng(0)
    model = _model(device)
    worst = 0
    for seed in range(20):
        examples = _examples(seed)
        examples = replace(examples, **spans_behind(np.ones(len(examples)), examples.lengths))
        order = generator.permutation(len(examples))
        changed = int(generator.integers(len(examples)))
        before = _logits(model, examples, order, device, dtype)
        at = int(examples.offsets[changed] + generator.integers(examples.lengths[changed]))
        examples.tokens[at] = 3 + (examples.tokens[at] - 3 + 1) % (_VOCABULARY - 3)
        after = _logits(model, examples, order, device, dtype)
        owner = np.repeat(order, examples.lengths[order] - 1)
        others = torch.from_numpy(owner != changed).to(device)
        worst += int((before[: len(owner)][others] != after[: len(owner)][others]).sum())
    return {"changed_numbers": worst, "passed": worst == 0}


def packed_equals_alone(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The gradient of a packed micro-batch is the sum of its examples' gradients."""
    examples, model = _examples(1), _model(device)
    packed = _gradients(model, examples, [list(range(len(examples)))], device, dtype)
    alone = _gradients(model, examples, [[i] for i in range(len(examples))], device, dtype)
    return _compared(alone, packed, FLOAT_TOLERANCE if dtype == torch.float32 else HALF_TOLERANCE)


def compiled_equals_eager(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """With each way of recomputation."""
    examples = _examples(2)
    whole = [list(range(len(examples)))]
    eager = _gradients(_model(device), examples, whole, device, dtype)
    worst: dict[str, Any] = {"difference": 0.0, "passed": True}
    for how in ("none", "selective", "full"):
        model = _model(device, ComputeSpec(compile=True, activation_checkpointing=how))
        found = _compared(eager, _gradients(model, examples, whole, device, dtype), HALF_TOLERANCE)
        worst["difference"] = max(worst["difference"], found["difference"])
        worst["passed"] = worst["passed"] and found["passed"]
    return worst


def scaler_leaves_the_update_alone(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """A fused update after unscaling and clipping equals one whose loss was never scaled (in float32: to rounding)."""
    examples = _examples(3)
    weights = []
    for scale in (1.0, 2.0**10):
        model = _model(device)
        optimizer: Any = make_optimizer(OptimizerSpec(lr=1e-2), model.named_parameters(), OPT.decays)
        scaler = torch.amp.GradScaler(device.type, init_scale=scale)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nll_sum(model, collate(examples, range(len(examples)), _PAD).to(device))
            scaler.scale(loss / 100).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        weights.append([parameter.detach() for parameter in model.parameters()])
    unscaled, scaled = weights
    return _compared(unscaled, scaled, FLOAT_TOLERANCE)


CHECKS: dict[str, Callable[[torch.device, torch.dtype], dict[str, Any]]] = {
    "no leak": no_leak,
    "packed = alone": packed_equals_alone,
    "compiled = eager": compiled_equals_eager,
    "scaler and fused update": scaler_leaves_the_update_alone,
}


def _model(device: torch.device, compute: ComputeSpec | None = None) -> OPTForCausalLM:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=_VOCABULARY,
        hidden_size=256,
        word_embed_proj_dim=256,
        ffn_dim=1_024,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        activation_function="gelu",
        dropout=0.0,
        attention_dropout=0.0,
    )
    model = OPTForCausalLM(config)
    model.set_attn_implementation(PACKED_ATTENTION)
    prepare_layers(model, OPT, compute or ComputeSpec(compile=False), fast_attention=True)
    model.to(device)  # type: ignore[arg-type]  # its decorator lost `self`
    return model.train()


def _examples(seed: int, count: int = 12) -> EncodedExamples:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, 100, count)
    offsets = np.cumsum([0, *lengths])
    return EncodedExamples(
        tokens=generator.integers(3, _VOCABULARY, offsets[-1]).astype(np.uint16),
        offsets=offsets,
        **spans_behind([generator.integers(0, length) for length in lengths], lengths),
        content_hashes=np.zeros(count, np.uint64),
        prompt_hashes=np.arange(count, dtype=np.uint64),
        near_hashes=np.arange(count, dtype=np.uint64),
        record_indices=np.arange(count, dtype=np.int32),
        receipt=Receipt("random tokens", 100),
    )


def _logits(
    model: OPTForCausalLM, examples: EncodedExamples, order: Any, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    sizes = Sizes(64, 1 << 20, len(order) + 1, 128)
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return target_logits(model, collate(examples, order, _PAD, sizes).to(device))


def _gradients(
    model: OPTForCausalLM,
    examples: EncodedExamples,
    micro_batches: list[list[int]],
    device: torch.device,
    dtype: torch.dtype,
) -> list[torch.Tensor]:
    model.zero_grad()
    for indices in micro_batches:
        sizes = Sizes(64, 1 << 20, len(examples) + 1, 128)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = nll_sum(model, collate(examples, indices, _PAD, sizes).to(device))
        loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def _compared(one: list[torch.Tensor], other: list[torch.Tensor], tolerance: float) -> dict[str, Any]:
    largest = max(float(tensor.abs().max()) for tensor in one)
    difference = max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / largest
    return {"difference": difference, "tolerance": tolerance, "passed": difference <= tolerance}
