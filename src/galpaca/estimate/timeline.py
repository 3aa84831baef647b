"""How memory goes up and down in a micro-batch: what each part of a model leaves behind, and how far it goes up in it.

``timelines.json`` has them by kind of training, as bytes for each product of sizes: ``{"hidden*tokens": 20.0625}`` are
20.0625 bytes for each token and unit of the stream's width; ``/shards`` divides by the ranks that share a model. They
were counted, allocation by allocation, on tensors without storage: ``python -m bench.timelines``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("timelines.json")
# In their order. Layers between the first and the last are alike, but for the one whose backward comes second.
PARTS = (
    "embedding",
    "first forward",
    "middle forward",
    "last forward",
    "head",
    "last backward",
    "next backward",
    "middle backward",
    "first backward",
    "embedding backward",
)
# Where the file has nothing of a part, it is as another.
LIKE = {
    "first forward": "middle forward",
    "next backward": "middle backward",
    "first backward": "middle backward",
}
# Of the model that was counted.
NUM_LAYERS = 5
_SHARDED = "/shards"

Bytes = Mapping[str, float]
Sizes = Mapping[str, float]


def num_bytes(terms: Bytes, sizes: Sizes) -> float:
    """Bytes of a sum of products.

    Args:
        terms: bytes for each product of sizes, by its name.
        sizes: by the names in these.
    """
    return sum(each * _product(name, sizes) for name, each in terms.items())


def _product(name: str, sizes: Sizes) -> float:
    whole = name.removesuffix(_SHARDED)
    product = prod(sizes[factor] for factor in whole.split("*"))
    return product if whole == name else product / sizes["shards"]


@dataclass(frozen=True)
class Timeline:
    """A micro-batch's.

    Attributes:
        carried: bytes that a strategy keeps from one to the next, beside weights, gradients and the optimizer's state.
        left: of each part, by how much more there is after it.
        peaks: of each part, how much more there is within, at the moments that may be the fullest.
    """

    carried: Bytes
    left: Mapping[str, Bytes]
    peaks: Mapping[str, tuple[Bytes, ...]]

    def peak(self, sizes: Sizes, num_layers: int) -> Bytes:
        """The fullest moment, for a model of these sizes: bytes beside those before the micro-batch."""
        best, most, now = dict[str, float](), 0.0, dict[str, float]()
        for part, count in _counts(num_layers):
            # In between it goes up or down evenly, so that the first or the last of them is the fullest.
            for index in sorted({0, count - 1}):
                start = _sum(now, self.left[part], index)
                for point in self.peaks[part]:
                    terms = _sum(start, point)
                    if (value := num_bytes(terms, sizes)) > most:
                        best, most = terms, value
            now = _sum(now, self.left[part], count)
        return best


def _counts(num_layers: int) -> Iterator[tuple[str, int]]:
    several, between = num_layers > 1, max(0, num_layers - 2)
    counts = (1, several, between, 1, 1, 1, between > 0, max(0, between - 1), several, 1)
    return ((part, int(count)) for part, count in zip(PARTS, counts, strict=True) if count)


def _sum(terms: Bytes, more: Bytes, times: float = 1.0) -> dict[str, float]:
    total = dict(terms)
    for name, each in more.items():
        total[name] = total.get(name, 0.0) + times * each
    return total


@dataclass(frozen=True)
class Kind:
    """A way to train, as far as it decides how memory goes up and down.

    Attributes:
        family: type of the model.
        strategy: how ranks hold the model.
        tuning: what is trained of it.
        stream: ``wide`` where the residual stream has 32 bits though products have 16.
        recomputation: ``compute.activation_checkpointing``.
    """

    family: str
    strategy: str
    tuning: str
    stream: str
    recomputation: str

    @property
    def name(self) -> str:
        return ", ".join((self.family, self.strategy, self.tuning, self.stream, self.recomputation))


def timeline_of(kind: Kind, *, is_only: bool) -> Timeline | None:
    """The timeline of a kind; None where nobody has counted it.

    Args:
        is_only: of a step's only micro-batch, or of its last one, before which there are gradients.
    """
    found = read_all().get(kind.name)
    if found is None:
        return None
    content = dict(found["only" if is_only else "last"])
    carried = content.pop("carried")
    left = {part: one["left"] for part, one in content.items()}
    return Timeline(carried, left, {part: tuple(one["peaks"]) for part, one in content.items()})


@cache
def read_all() -> dict[str, Any]:
    """The file's content, whole: by kind, of an ``only`` micro-batch and of the ``last`` of several."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: _whole(found) for name, found in content.items()}


def _whole(found: Mapping[str, Any]) -> dict[str, Any]:
    only = dict(found["only"])
    only |= {part: only[like] for part, like in LIKE.items() if part not in only}
    return {"only": only, "last": {**only, **found["last"]}}
