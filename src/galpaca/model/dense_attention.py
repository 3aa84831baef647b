"""Attention on a CPU: all scores of an example at once.

At Alpaca's lengths torch's CPU kernel spends more on its blocks than they save, and differentiating slices of a packed
row costs as much again (bench/LOG.md). Shapes: ``H`` heads, ``G`` of them with keys and values of their own, ``T``
tokens, ``D`` head size, ``n`` tokens of an example.
"""

from typing import Any

import torch
from torch import Tensor

# Beyond, the (n, n) scores of an example leave the cache, and the kernel is faster.
LONGEST_TOKENS = 512


class DenseAttention(torch.autograd.Function):
    """Causal attention of each example over itself: (H, T, D) queries, (G, T, D) keys and values to (T, H, D).

    Queries that share keys are stacked: H / G matrices of (n, D) are one of (n H / G, D).
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float
    ) -> Tensor:
        longest, groups = max(lengths), key.shape[0]
        future = query.new_full((longest, longest), float("-inf")).triu_(1)
        output = _rows_like(query)
        weights = []
        for n, *(q, k, v, out) in _examples(lengths, query, key, value, output.transpose(0, 1)):
            unseen = future[:n, :n].repeat(len(q) // groups, 1)
            weights.append(torch.baddbmm(unseen, _stacked(q, groups), k.mT, alpha=scaling).softmax(dim=-1))
            out.copy_((weights[-1] @ v).view_as(out))
        ctx.save_for_backward(query, key, value, *weights)
        ctx.lengths, ctx.scaling = lengths, scaling
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *weights = ctx.saved_tensors
        found = [_rows_like(one).transpose(0, 1) for one in (query, key, value)]
        groups = key.shape[0]
        examples = _examples(ctx.lengths, gradient.transpose(0, 1), query, key, value, *found)
        for w, (_, dy, q, k, v, dq, dk, dv) in zip(weights, examples, strict=True):
            stacked = _stacked(dy, groups)
            dv.copy_(w.mT @ stacked)
            dw = stacked @ v.mT
            dscores = torch._softmax_backward_data(dw, w, -1, w.dtype).mul_(ctx.scaling)
            dq.copy_((dscores @ k).view_as(dq))
            dk.copy_(dscores.mT @ _stacked(q, groups))
        return *found, None, None


def _stacked(heads: Tensor, groups: int) -> Tensor:
    """(H, n, D) to (G, n H / G, D)."""
    return heads if len(heads) == groups else heads.reshape(groups, -1, heads.shape[-1])


def _rows_like(heads: Tensor) -> Tensor:
    """(T, H, D), in the order in which the projections before and after attention have their rows."""
    return heads.new_empty(heads.shape[1], heads.shape[0], heads.shape[2])


def _examples(lengths: tuple[int, ...], *heads: Tensor) -> Any:
    """(n, (H or G, n, D), ...) of each example."""
    return zip(lengths, *(tensor.split(lengths, dim=1) for tensor in heads), strict=True)
