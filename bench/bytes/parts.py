"""What a step moves, by part: which kernel is which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from galpaca.fake_cuda.program import Launch, Program
from galpaca.fake_cuda.schema_bytes import Moved

_GB = 1e9
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "_varlen_attn", "_varlen_attn_backward", "linear")
# All that a cast of a weight consists of in a compiled graph.
_OF_A_CAST = {"prims.convert_element_type.default"}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """Bytes by part; matrix products and attention are left out.

    Attributes:
        elementwise: compiled layers' pointwise operations and reductions, embeddings, and the loss.
        casts: weights to 16 bits, and their gradients back to 32.
        accumulation: gradients of micro-batches, brought together and added up.
        norm: gradients, read for their global norm.
        update: unscaling, clipping and the optimizer.
    """

    elementwise: float = 0
    casts: float = 0
    accumulation: float = 0
    norm: float = 0
    update: float = 0

    @property
    def total(self) -> float:
        return sum(getattr(self, one.name) for one in fields(self))

    def __add__(self, other: Parts) -> Parts:
        return Parts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def __mul__(self, factor: float) -> Parts:
        return Parts(*(getattr(self, one.name) * factor for one in fields(self)))

    def gigabytes(self) -> dict[str, float]:
        found = {one.name: round(getattr(self, one.name) / _GB, 2) for one in fields(self)}
        return {**found, "total": round(self.total / _GB, 2)}


def of_program(program: Program) -> Parts:
    """What a compiled layer's program moves."""
    return sum((_of_launch(launch) for launch in program.launches), Parts())


def _of_launch(launch: Launch) -> Parts:
    if launch.is_library and _is_product(launch.name):
        return Parts()
    if launch.is_of_fixed_size and launch.ops <= _OF_A_CAST:
        return Parts(casts=launch.moved_bytes)
    return Parts(elementwise=launch.moved_bytes)


def of_operations(operations: Iterable[Moved], weights: Iterable[Shape]) -> Parts:
    """What operations outside of programs move in forward and backward.

    Args:
        weights: shapes of the parameters.
    """
    shapes = set(weights)
    return sum((_of_operation(one, shapes) for one in operations), Parts())


def _of_operation(one: Moved, weights: set[Shape]) -> Parts:
    name = one.op.split(".")[1]
    is_of_weights = set(one.shapes) <= weights and len(one.shapes) > 0
    if _is_product(one.op):
        return Parts()
    if name == "_to_copy" and is_of_weights:
        return Parts(casts=one.moved_bytes)
    if name in ("add", "add_") and is_of_weights:
        return Parts(accumulation=one.moved_bytes)
    return Parts(elementwise=one.moved_bytes)


def of_update(operations: Iterable[Moved], programs: Iterable[Program]) -> Parts:
    """What follows backward; compiled kernels are the update's, and norms are by their names."""
    norm = sum(one.moved_bytes for one in operations if "norm" in one.op)
    update = sum(one.moved_bytes for one in operations if "norm" not in one.op)
    compiled = sum(launch.moved_bytes for program in programs for launch in program.launches)
    return Parts(norm=norm, update=update + compiled)


def _is_product(op: str) -> bool:
    return op.split(".")[1] in _PRODUCTS
