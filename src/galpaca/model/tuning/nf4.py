"""NF4, the 4-bit numbers of QLoRA (Dettmers et al. 2023): sixteen values, and a scale for each 64 of them.

Codes and scales are those of bitsandbytes without its second quantization of the scales, which does not give the same
numbers for a range of a tensor as for the whole of it. Two codes are in a byte, the first in its high half.
"""

from typing import Any

import torch
from torch import Tensor

BLOCK_VALUES = 64

# Quantiles of a normal distribution, scaled to [-1, 1] and with an exact 0: appendix E of the paper.
_VALUES = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def scales_of(values: Tensor) -> Tensor:
    """(N,) float32 values, N a multiple of 64, to (N / 64,): the largest magnitude of each block."""
    return values.view(-1, BLOCK_VALUES).abs().amax(1)


def codes_of(values: Tensor) -> Tensor:
    """(N,) float32 values, N a multiple of 64, to (N / 2,) bytes of two codes each: the nearest of the 16 values."""
    table = torch.tensor(_VALUES, device=values.device)
    relative = values.view(-1, BLOCK_VALUES) / scales_of(values)[:, None].clamp_min(torch.finfo(torch.float32).tiny)
    codes = torch.bucketize(relative, (table[1:] + table[:-1]) / 2).to(torch.uint8).view(-1)
    return (codes[0::2] << 4) | codes[1::2]


def dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    """(N / 2,) codes and (N / 64,) scales to (N,) values, in the dtype of the scales."""
    table = torch.tensor(_VALUES, device=codes.device, dtype=scales.dtype)
    both = torch.stack([codes >> 4, codes & 15], dim=1).view(-1, BLOCK_VALUES).int()
    return (table[both] * scales[:, None]).view(-1)


class Nf4Product(torch.autograd.Function):
    """(..., in) times the transpose of an (out, in) matrix in NF4.

    For backward it keeps codes and scales, and makes the matrix again: no 16-bit copy of it outlives the product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(codes, scales)
        return x @ _matrix(codes, scales, x).t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        codes, scales = ctx.saved_tensors
        return gradient @ _matrix(codes, scales, gradient, transposed=True), None, None


def _matrix(codes: Tensor, scales: Tensor, beside: Tensor, *, transposed: bool = False) -> Tensor:
    """The matrix whose rows are as long as ``beside``'s; with ``transposed`` it has as many rows."""
    num_values = 2 * codes.numel()
    width = num_values // beside.shape[-1] if transposed else beside.shape[-1]
    return dequantize(codes, scales).to(beside.dtype).view(-1, width)
