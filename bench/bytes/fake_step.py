"""Forward and backward of the project's own path on fake tensors; for a process that ``galpaca.fake_cuda`` has changed.

Shapes: ``T`` tokens of a micro-batch, ``K`` target tokens, ``C`` hidden size, ``V`` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from galpaca.data.collate import MicroBatch
from galpaca.model.build import build_model
from galpaca.model.compute import prepare_layers
from galpaca.model.compute_spec import ComputeSpec, compute_dtype
from galpaca.model.families.family import Family
from galpaca.model.families.opt import OPT
from galpaca.model.loss import nll_sum

CUDA = torch.device("cuda")


@dataclass(frozen=True)
class Arithmetic:
    """The dtypes of a precision under a strategy.

    Attributes:
        weights: of the parameters that layers compute with.
        products: of autocast's matrix products.
    """

    weights: torch.dtype
    products: torch.dtype

    @classmethod
    def of(cls, precision: str, strategy: str) -> Arithmetic:
        """FSDP hands 16-bit copies of its shards to the layers; other strategies leave the casts to autocast."""
        products = getattr(torch, compute_dtype(precision))
        return cls(products if strategy == "fsdp" else torch.float32, products)


def fake_model(
    config: PreTrainedConfig, arithmetic: Arithmetic, recomputation: str, family: Family = OPT
) -> PreTrainedModel:
    """The model as training prepares it, on the card; call it under ``FakeTensorMode``."""
    model = build_model(config, family)
    prepare_layers(model, family, ComputeSpec(activation_checkpointing=recomputation), fast_attention=True)
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        _place(module, arithmetic.weights, made)
    return model


def _place(module: nn.Module, dtype: torch.dtype, made: dict[nn.Parameter, nn.Parameter]) -> None:
    """Puts a module's own parameters and buffers on the card; tied ones stay tied."""
    for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
        if parameter not in made:
            made[parameter] = nn.Parameter(torch.empty(parameter.shape, dtype=dtype, device=CUDA))
        setattr(module, name, made[parameter])
    for name, buffer in list(module.named_buffers(recurse=False)):
        setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA))


def fake_micro_batch(num_tokens: int, num_targets: int, num_examples: int, longest_tokens: int) -> MicroBatch:
    """A micro-batch of nothing but sizes; call it under ``FakeTensorMode``."""

    def ids(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device=CUDA)

    return MicroBatch(
        input_ids=ids(1, num_tokens),
        position_ids=ids(1, num_tokens),
        cu_seqlens=torch.empty(num_examples + 1, dtype=torch.int32, device=CUDA),
        lengths=(num_tokens,),
        longest_tokens=longest_tokens,
        target_rows=ids(num_targets),
        target_ids=ids(num_targets),
    )


def fake_loss(model: PreTrainedModel, micro_batch: MicroBatch, arithmetic: Arithmetic) -> Tensor:
    """Scalar loss, under autocast as all strategies have it."""
    with torch.autocast("cuda", dtype=arithmetic.products):
        return nll_sum(model, micro_batch)
