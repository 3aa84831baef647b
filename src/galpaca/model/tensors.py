"""Named tensors that are read range by range, so that nobody has to hold a whole one, let alone a whole model."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from galpaca.errors import Problems

Shapes = Mapping[str, tuple[int, ...]]

# Values that are handled at a time where a tensor is streamed: 64 MiB in float32.
CHUNK_VALUES = 1 << 24


class TensorSource(Protocol):
    """Where tensors come from: a model's folder, a checkpoint, a generator of random numbers."""

    @property
    def shapes(self) -> Shapes:
        """Shape of every tensor by its name in the family's model; tied ones once."""

    def read(self, name: str, start: int, out: Tensor) -> None:
        """Fills ``out`` with values of a tensor, cast to its dtype on the way.

        Args:
            name: one of ``shapes``.
            start: place of the first value in the flattened tensor.
            out: one-dimensional, of any dtype and on any device.
        """


class Overlaid:
    """A source in which some tensors come from another one.

    Args:
        under: the tensors of a model.
        over: those that replace its own, or are added.
    """

    def __init__(self, under: TensorSource, over: TensorSource) -> None:
        self.under, self.over = under, over
        self.shapes: Shapes = {**under.shapes, **over.shapes}

    def read(self, name: str, start: int, out: Tensor) -> None:
        (self.over if name in self.over.shapes else self.under).read(name, start, out)


def chunks(num_values: int, size: int = CHUNK_VALUES) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) that cover ``num_values``."""
    for start in range(0, num_values, size):
        yield start, min(start + size, num_values)


def check_shapes(found: Shapes, wanted: Shapes, where: object, fix: str) -> None:
    """Compares the tensors of a source with those that a model wants.

    Raises:
        InputError: all that are missing, unexpected or misshapen.
    """
    with Problems() as problems:
        for name in sorted(wanted.keys() - found.keys()):
            problems.add(f"missing weight: {name}", where=where, fix=fix)
        for name in sorted(found.keys() - wanted.keys()):
            problems.add(f"unexpected weight: {name}", where=where, fix=fix)
        for name in sorted(found.keys() & wanted.keys()):
            if tuple(found[name]) != tuple(wanted[name]):
                problems.add(
                    f"mismatched weight: {name} is {_written(found[name])}, expected {_written(wanted[name])}",
                    where=where,
                    fix=fix,
                )


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def _written(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))
