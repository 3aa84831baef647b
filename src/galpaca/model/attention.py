"""Causal attention over packed examples, none of which sees another.

Registered with ``transformers`` under a name of its own, so nothing is patched: the boundaries of the examples travel
as a keyword argument through the model's forward. Shapes: ``H`` heads, ``G`` of them with keys and values of their own
(each shared by H / G consecutive heads), ``T`` tokens, ``D`` head size.
"""

from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from galpaca.model.compute_spec import takes_fast_attention
from galpaca.model.dense_attention import LONGEST_TOKENS, DenseAttention

PACKED_ATTENTION = "galpaca_packed"


@dataclass(frozen=True)
class Boundaries:
    """Where examples begin and end in a packed row.

    Attributes:
        cu_seqlens: (N + 1,) int32 on the model's device; may end with empty examples.
        lengths: lengths on the host, without the empty ones.
        longest_tokens: upper bound of the lengths.
    """

    cu_seqlens: Tensor
    lengths: tuple[int, ...]
    longest_tokens: int


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    boundaries: Boundaries | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of each example over itself.

    Args:
        query: (1, H, T, D).
        key, value: (1, G, T, D).
        boundaries: boundaries of the examples in the row.
        dropout: dropout probability of the attention weights; only the per-example path supports it.
        scaling: scale of the scores; 1.0 for OPT, which scales the query itself.

    Returns:
        (1, T, H, D), and no weights.
    """
    if boundaries is None:
        raise ValueError("packed attention requires the boundaries of the examples")
    # Rotation by float32 angles widens queries and keys under autocast, which would compute their product narrow again.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if _can_use_varlen(query, dropout):
        return _varlen(query, key, value, boundaries, scaling), None
    return _one_by_one(query, key, value, boundaries, dropout, scaling), None


def is_fast(accelerator: str, precision: str, dropout: float) -> bool:
    """Whether a run can take one kernel over all examples instead of attention over one after the other.

    On a machine without a GPU the answer is that of one whose GPU is recent enough.
    """
    return accelerator == "gpu" and takes_fast_attention(precision, dropout) and not gpu_is_too_old()


def _can_use_varlen(query: Tensor, dropout: float) -> bool:
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    return query.is_cuda and is_half and dropout == 0.0 and not gpu_is_too_old()


# FlashAttention 2, behind ``varlen_attn``, has no program for GPUs before it (V100, T4): the first step would fail.
OLDEST_CAPABILITY = (8, 0)


@torch.compiler.assume_constant_result
def gpu_is_too_old() -> bool:
    """Whether this process's GPU, if it has one, lacks the kernel over all examples."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() < OLDEST_CAPABILITY


def _takes_groups(query: Tensor) -> bool:
    """Whether torch's attention has a kernel for fewer key-value heads than heads: on GPUs FlashAttention alone, and
    otherwise all scores of an example would be kept.
    """
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    return not query.is_cuda or (is_half and not gpu_is_too_old())


def _repeated(shared: Tensor, query: Tensor) -> Tensor:
    """(1, G, T, D) keys or values as (1, H, T, D): each for H / G consecutive heads."""
    return shared.repeat_interleave(query.shape[1] // shared.shape[1], dim=1)


def _can_use_dense(query: Tensor, longest_tokens: int, dropout: float) -> bool:
    exact = query.dtype in (torch.float32, torch.float64)
    return query.device.type == "cpu" and exact and dropout == 0.0 and longest_tokens <= LONGEST_TOKENS


# A compiler would make a new program for every list of lengths.
@torch.compiler.disable
def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Boundaries, dropout: float, scaling: float | None
) -> Tensor:
    lengths = list(boundaries.lengths)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if _can_use_dense(query, max(lengths), dropout):
        return DenseAttention.apply(*_rows(query, key, value), boundaries.lengths, scale).unsqueeze(0)
    grouped = key.shape[1] != query.shape[1]
    if grouped and not _takes_groups(query):
        key, value = (_repeated(one, query) for one in (key, value))
        grouped = False
    outputs = [
        scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=grouped)
        for q, k, v in zip(
            query.split(lengths, dim=2), key.split(lengths, dim=2), value.split(lengths, dim=2), strict=True
        )
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2)


# ``varlen_attn`` says causal by ``is_causal`` up to torch 2.10 and by a window from then on.
_KNOWN = signature(varlen_attn).parameters
_CAUSAL: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in _KNOWN else {"is_causal": True}


def _varlen(query: Tensor, key: Tensor, value: Tensor, boundaries: Boundaries, scaling: float | None) -> Tensor:
    longest = boundaries.longest_tokens
    starts = boundaries.cu_seqlens
    how = dict(_CAUSAL)
    if key.shape[1] != query.shape[1]:
        if "enable_gqa" in _KNOWN:
            how["enable_gqa"] = True
        else:
            key, value = (_repeated(one, query) for one in (key, value))
    rows = [tensor.transpose(0, 1) for tensor in _rows(query, key, value)]  # (T, H or G, D)
    output = varlen_attn(rows[0], rows[1], rows[2], starts, starts, longest, longest, scale=scaling, **how)
    assert isinstance(output, Tensor)  # a pair only where auxiliary output is requested
    return output.unsqueeze(0)


def _rows(*tensors: Tensor) -> list[Tensor]:
    """Without the dimension of 1. Indexing would do the same, but its backward fills and copies a whole tensor."""
    return [tensor.squeeze(0) for tensor in tensors]


# No mask is registered under the name, so none is made: the boundaries say it all, and transformers would read
# positions from the device to look for packed texts of its own.
AttentionInterface.register(PACKED_ATTENTION, packed_attention)
