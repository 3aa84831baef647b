"""Attention on a CPU: all scores of an example at once.

At Alpaca's lengths torch's CPU kernel spends more on its blocks than they save, and differentiating slices of a packed
row costs as much again (bench/LOG.md). Shapes: ``H`` heads, ``T`` tokens, ``D`` head size, ``n`` tokens of an example.
"""

from typing import Any

import torch
from torch import Tensor

# Beyond, the (n, n) scores of an example leave the cache, and the kernel is faster.
LONGEST_TOKENS = 512


class DenseAttention(torch.autograd.Function):
    """Causal attention of each example over itself: (H, T, D) thrice to (T, H, D)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float
    ) -> Tensor:
        longest = max(lengths)
        future = query.new_full((longest, longest), float("-inf")).triu_(1)
        output = _rows_like(query)
        weights = []
        for n, *(q, k, v, out) in _examples(lengths, query, key, value, output.transpose(0, 1)):
            weights.append(torch.baddbmm(future[:n, :n], q, k.mT, alpha=scaling).softmax(dim=-1))
            out.copy_(weights[-1] @ v)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.lengths, ctx.scaling = lengths, scaling
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *weights = ctx.saved_tensors
        found = [_rows_like(query).transpose(0, 1) for _ in range(3)]
        examples = _examples(ctx.lengths, gradient.transpose(0, 1), query, key, value, *found)
        for w, (_, dy, q, k, v, dq, dk, dv) in zip(weights, examples, strict=True):
            dv.copy_(w.mT @ dy)
            dw = dy @ v.mT
            dscores = torch._softmax_backward_data(dw, w, -1, w.dtype).mul_(ctx.scaling)
            dq.copy_(dscores @ k)
            dk.copy_(dscores.mT @ q)
        return *found, None, None


def _rows_like(heads: Tensor) -> Tensor:
    """(T, H, D), in the order in which the projections before and after attention have their rows."""
    return heads.new_empty(heads.shape[1], heads.shape[0], heads.shape[2])


def _examples(lengths: tuple[int, ...], *heads: Tensor) -> Any:
    """(n, (H, n, D), ...) of each example."""
    return zip(lengths, *(tensor.split(lengths, dim=1) for tensor in heads), strict=True)
