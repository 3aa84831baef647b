"""``varlen_attn`` for CPUs: the same arguments, in plain products, opaque to the compiler as the kernel is.

With it in place, a CPU runs the path that only GPUs take: one attention call a layer, layers compiled in one graph.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def _examples(starts: Tensor, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    lengths = starts.diff().tolist()
    return zip(*(tensor.split(lengths) for tensor in rows), strict=True)


def _shared(rows: Tensor, heads: int) -> Tensor:
    """(n, G, D) keys or values as (n, H, D): each for H / G consecutive heads."""
    return rows.repeat_interleave(heads // rows.shape[1], dim=1)


def _weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """(H, n, n) of one example's (n, H, D)."""
    scores = torch.einsum("ihd,jhd->hij", q, k) * scale
    return scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), float("-inf")).softmax(dim=-1)


@torch.library.custom_op("galpaca_tests::varlen", mutates_args=())
def _varlen(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float) -> Tensor:
    k, v = (_shared(rows, q.shape[1]) for rows in (k, v))
    outputs = [
        torch.einsum("hij,jhd->ihd", _weights(query, key, scale), value)
        for query, key, value in _examples(starts, q, k, v)
    ]
    return torch.cat(outputs)


@torch.library.custom_op("galpaca_tests::varlen_backward", mutates_args=())
def _varlen_backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    groups = k.shape[1]
    k, v = (_shared(rows, q.shape[1]) for rows in (k, v))
    found = []
    for dy, query, key, value in _examples(starts, gradient, q, k, v):
        weights = _weights(query, key, scale)
        dweights = torch.einsum("ihd,jhd->hij", dy, value)
        dscores = weights * (dweights - (dweights * weights).sum(dim=-1, keepdim=True)) * scale
        dq = torch.einsum("hij,jhd->ihd", dscores, key)
        dk = torch.einsum("hij,ihd->jhd", dscores, query)
        found.append((dq, dk, torch.einsum("hij,ihd->jhd", weights, dy)))
    dq, dk, dv = (torch.cat(parts) for parts in zip(*found, strict=True))
    dk, dv = (rows.unflatten(1, (groups, -1)).sum(2) for rows in (dk, dv))
    return dq, dk, dv


@_varlen.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@_varlen_backward.register_fake
def _(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))  # type: ignore[return-value]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, starts, scale = inputs
    ctx.save_for_backward(q, k, v, starts)
    ctx.scale = scale


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *_varlen_backward(gradient, *ctx.saved_tensors, ctx.scale), None, None


_varlen.register_autograd(_backward, setup_context=_setup)


def varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool = False,
) -> Tensor:
    assert enable_gqa == (query.shape[1] != key.shape[1])
    assert cu_seq_q is cu_seq_k
    assert window_size == (-1, 0), "causal"
    assert max_q == max_k
    return _varlen(query, key, value, cu_seq_q, scale)


def install(stop_at_step: int | None = None) -> None:
    """Gives this process the path that only GPUs take: attention by one call, micro-batches padded, layers compiled.

    Args:
        stop_at_step: asks the run to stop as that step's figures are written.
    """
    from faults.crash import terminate_at_step

    from galpaca.model import attention

    module: Any = attention
    module.varlen_attn = varlen_attn
    module._can_use_varlen = lambda query, dropout: True
    module.is_fast = lambda accelerator, precision, dropout: True
    if stop_at_step is not None:
        terminate_at_step(stop_at_step)
