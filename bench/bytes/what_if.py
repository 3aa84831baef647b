"""What a step would move after changes that nobody has made: arithmetic on counted rows, and not measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.gpu.workload import SHAPES

_GB, _GIB = 1e9, 2**30
Row = dict[str, Any]


def what_if(row: Row) -> list[Row]:
    """A row for each change of a counted one, each alone; of one card without recomputation."""
    return [
        {**row, "if": change.__doc__, "gigabytes": _totalled(row, gigabytes), "gib_kept_for_backward": gib}
        for change in _CHANGES
        for gigabytes, gib in [change(row)]
    ]


def _copies_by_update(row: Row) -> tuple[dict[str, float], float]:
    """if the update wrote 16-bit copies of the weights, kept for all micro-batches"""
    weights, micro_batches = row["parameters"], row["micro_batches"]
    # Without recomputation each micro-batch keeps its own copies for backward; those of layers go.
    kept = row["gib_kept_for_backward"] - 2 * _matrices(row) / _GIB + 2 * weights / _GIB
    return {"casts": -6 * weights * micro_batches / _GB, "update": 2 * weights / _GB}, round(kept, 2)


def _accumulated_by_product(row: Row) -> tuple[dict[str, float], float]:
    """if products added weights' gradients to the sum in float32 themselves"""
    weights, micro_batches = _matrices(row), row["micro_batches"]
    # They write 4 bytes instead of 2, and read 4 from the second micro-batch on; that is counted as accumulation.
    products = 2 * weights * micro_batches + 4 * weights * (micro_batches - 1)
    no_more = 12 * weights * (micro_batches - 1)
    change = {"casts": -6 * weights * micro_batches / _GB, "accumulation": (products - no_more) / _GB}
    return change, row["gib_kept_for_backward"]


def _one_qkv_product(row: Row) -> tuple[dict[str, float], float]:
    """if queries, keys and values came of one product"""
    shape = SHAPES[row["shape"]]
    # Backward has one gradient of their input, where it adds up three in 16 bits; products read their input once.
    tensor = 2 * row["num_tokens"] * shape.hidden_size * shape.num_layers * row["micro_batches"]
    return {"elementwise": -2 * tensor / _GB}, row["gib_kept_for_backward"]


_CHANGES: list[Callable[[Row], tuple[dict[str, float], float]]] = [
    _copies_by_update,
    _accumulated_by_product,
    _one_qkv_product,
]


def _matrices(row: Row) -> int:
    """Parameters of the layers' matrices."""
    shape = SHAPES[row["shape"]]
    return 12 * shape.hidden_size**2 * shape.num_layers


def _totalled(row: Row, change: dict[str, float]) -> dict[str, float]:
    parts = {name: value + change.get(name, 0) for name, value in row["gigabytes"].items() if name != "total"}
    rounded = {name: round(value, 2) for name, value in parts.items()}
    return {**rounded, "total": round(sum(parts.values()), 2)}
