"""Sizes that are told apart by their prime factors, so that a number of values says which sizes it is a product of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

# Each has a prime of its own. All are multiples of 64, since Inductor pads rows of others; what is sharded, of 192.
NUM_SHARDS = 3
HEAD_SIZE = 64
NUM_HEADS, NUM_KV_HEADS = 105, 21
SIZES = {
    "tokens": 64 * 37,
    "targets": 64 * 31,
    "hidden": HEAD_SIZE * NUM_HEADS,
    "kv": HEAD_SIZE * NUM_KV_HEADS,
    "ffn": 192 * 29,
    "vocab": 192 * 41,
    "positions": 192 * 11,
    "rank": 192 * 13,
}
_PRIMES = {37: "tokens", 31: "targets", 29: "ffn", 41: "vocab", 11: "positions", 13: "rank"}
_SHARDED = "/shards"


@dataclass(frozen=True)
class Terms:
    """Names numbers of values by the sizes that they are products of.

    Attributes:
        whole: numbers that have a name as they are: values of a layer, of all that is in none, or their bytes.
        is_sharded: whether values may be spread over ``NUM_SHARDS``.
    """

    whole: Mapping[int, str] = field(default_factory=dict)
    is_sharded: bool = False

    def of(self, num_values: int) -> tuple[str, float]:
        """The product's name, and how many times it is there."""
        if num_values in self.whole:
            return self.whole[num_values], 1.0
        if self.is_sharded:
            for whole, name in self.whole.items():
                if num_values == -(-whole // NUM_SHARDS):
                    return f"{name}{_SHARDED}", 1.0
        names = _factors(num_values)
        times = num_values / prod(SIZES[name] for name in names)
        name = "*".join(sorted(names))
        # Halves and the like are of narrow heads or of 4 bits; thirds are shards.
        if self.is_sharded and names and not {"tokens", "targets"} & set(names) and (times * 1024) % 1:
            return f"{name}{_SHARDED}", times * NUM_SHARDS
        return name, times


def _factors(num_values: int) -> list[str]:
    names = []
    for prime, name in _PRIMES.items():
        while num_values % prime == 0:
            num_values //= prime
            names.append(name)
    fives = _times(num_values, 5)
    return [*names, *["hidden"] * fives, *["kv"] * (_times(num_values, 7) - fives)]


def _times(number: int, prime: int) -> int:
    count = 0
    while number % prime == 0:
        number //= prime
        count += 1
    return count
