"""AdamW's update of a piece of a parameter, as plain operations: one after the other, or compiled into one kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

Rounding = Callable[[Tensor], Tensor]


class Piece(NamedTuple):
    """Consecutive values of a parameter, flat: (n,) each.

    Attributes:
        weights: float32 or float64.
        gradients: of the weights' dtype.
        first, second: the two moments, in the weights' dtype or in bfloat16.
    """

    weights: Tensor
    gradients: Tensor
    first: Tensor
    second: Tensor


class Scalars(NamedTuple):
    """What an update of a step depends on, as scalars on the device: they change without another program.

    Attributes:
        neg_step_size: -lr / (1 - beta1 ** count).
        root_correction: (1 - beta2 ** count) ** 0.5.
        decay: 1 - lr * weight_decay.
        factor: what gradients are multiplied with first; None for nothing.
        is_left_out: bool: nothing is to change; None for an update in any case.
    """

    neg_step_size: Tensor
    root_correction: Tensor
    decay: Tensor
    factor: Tensor | None
    is_left_out: Tensor | None


class PieceUpdate(NamedTuple):
    """The update of one piece, to be made."""

    piece: Piece
    scalars: Scalars
    rule: Callable[[Piece, Scalars], None]

    def make(self) -> None:
        self.rule(self.piece, self.scalars)


@dataclass(frozen=True)
class AdamWUpdate:
    """The update of one piece, in its place; the operations are in the order of torch's own loop, whose bits they give.

    Compiled, it reads and writes weights and moments once and gradients once: 20 bytes a parameter with bfloat16
    moments, 28 with float32 ones. One program serves pieces of any size.

    Attributes:
        beta1, beta2, eps: Adam's.
        rounding: float32 to bfloat16.
    """

    beta1: float
    beta2: float
    eps: float
    rounding: Rounding

    def __call__(self, piece: Piece, scalars: Scalars) -> None:
        weights, gradients, first, second = piece
        if scalars.factor is not None:
            gradients = gradients * scalars.factor
        mean = first.to(weights.dtype, copy=True).lerp_(gradients, 1 - self.beta1)
        square = second.to(weights.dtype, copy=True).mul_(self.beta2)
        square.addcmul_(gradients, gradients, value=1 - self.beta2)
        divisor = square.sqrt().div_(scalars.root_correction).add_(self.eps)
        change = mean.mul(scalars.neg_step_size).div_(divisor)
        _put(weights, change.add_(weights.mul(scalars.decay)), scalars.is_left_out)
        _put(first, self._rounded(mean, first.dtype), scalars.is_left_out)
        _put(second, self._rounded(square, second.dtype), scalars.is_left_out)

    def _rounded(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        return self.rounding(values.float()) if dtype == torch.bfloat16 != values.dtype else values


@cache
def compiled(update: AdamWUpdate) -> Callable[[Piece, Scalars], None]:
    """The update as one kernel; made once for all optimizers that make the same one."""
    program = torch.compile(update.__call__, fullgraph=True)

    def run(piece: Piece, scalars: Scalars) -> None:
        for values in piece:
            torch._dynamo.maybe_mark_dynamic(values, 0)
        program(piece, scalars)

    return run


def _put(target: Tensor, values: Tensor, is_left_out: Tensor | None) -> None:
    """Replaces values in their place, unless the scalar on the device says that they stay."""
    if is_left_out is None:
        target.copy_(values)
    else:
        torch.where(is_left_out, target, values, out=target)


def stochastic(values: Tensor) -> Tensor:
    """float32 to bfloat16, up or down with the probabilities that keep the mean.

    bfloat16 is float32 without its last 16 bits: a random number of 16 bits is added to them, and those are dropped.
    What is not finite stays so. Random by torch's generator of the device.
    """
    noise = torch.randint_like(values, 1 << 16, dtype=torch.int32)
    rounded = (values.view(torch.int32) + noise).bitwise_and_(-(1 << 16)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).bfloat16()


def nearest(values: Tensor) -> Tensor:
    """float32 to the nearest bfloat16."""
    return values.bfloat16()
