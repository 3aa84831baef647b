"""``python -m bench.predictions``: what a step should take on cards that nobody here has run yet.

Arithmetic, not measurements: products at a share of their peak, bytes moved over bandwidth, gathers and reductions over
links, memory by ``galpaca.estimate``. To be set beside what a card measures before anything is changed, and to be done
again whenever the step changes. Bytes are those that ``bench.bytes`` counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.workload import alpaca_plan
from bench.results import RESULTS, save
from galpaca.app.config.shapes import shape_of
from galpaca.estimate.flops import Architecture, Tuned, step_flops
from galpaca.estimate.gpus import dense_peak
from galpaca.estimate.memory import (
    HOST_MOMENTS_ROOM_BYTES,
    Fullest,
    MemoryParts,
    TrainedModel,
    num_adapter_weights,
    num_parameters,
    step_memory,
)
from galpaca.estimate.sharding import Sharding
from galpaca.estimate.timeline import Kind
from galpaca.model.tuning.full import FullTuning
from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.method import TuningMethod
from galpaca.model.tuning.qlora import QLora

_PLANNED_STEPS = 60
GIB = 1 << 30

# Large products reach this share of a card's stated peak (others' figures; bench.gpu measures it as its first limit),
# those of a narrow model less.
_NARROW_HIDDEN, _NARROW = 2_048, 0.85
# Of a stated bandwidth, of memory and of links; what kernels leave of the time between them.
_BANDWIDTH, _LINKS, _GAPS = 0.9, 0.75, 0.05
# Share of the products' time that gathers and reductions can hide behind; and what they move through a card's own
# memory for each parameter and micro-batch: two gathered copies in 16 bits, a gradient in 32 written and read.
_OVERLAP, _THROUGH_MEMORY_BYTES = 0.6, 2 * 2.0 + 2 * 4.0
# Recomputing what is cheap moves the forward's bytes once more.
_RECOMPUTED_BYTES = {"none": 1.0, "selective": 1.3, "full": 1.3}
# Operations of a weight's product that full recomputation adds.
_RECOMPUTED_FLOPS = {"none": 0, "selective": 0, "full": 2}


@dataclass(frozen=True)
class Card:
    """A GPU, by its maker's data sheet.

    Attributes:
        memory_gib: as the driver shows it.
        bytes_per_second: of its memory.
        link_bytes_per_second: to the other cards of its node, in one direction.
        host_bytes_per_second: to host memory, in one direction.
        product_share: what large products reach of the peak.
    """

    name: str
    memory_gib: float
    bytes_per_second: float
    link_bytes_per_second: float
    host_bytes_per_second: float
    product_share: float

    @property
    def peak(self) -> float:
        found = dense_peak(self.name, "bf16-mixed")
        assert found is not None
        return found


CARDS = (
    Card("A100", 79.2, 2.04e12, 300e9, 32e9, 0.75),
    Card("H100", 79.2, 3.35e12, 450e9, 64e9, 0.68),
    Card("H200", 139.8, 4.8e12, 450e9, 64e9, 0.73),
)


@dataclass(frozen=True)
class Way:
    """How a model is trained.

    Attributes:
        moments: dtype of Adam's moments.
        on_host: moments are in host memory.
    """

    name: str
    shape: str
    tuning: TuningMethod = field(default_factory=FullTuning)
    recomputation: str = "none"
    max_tokens: int = 4_096
    moments: str = "float32"
    on_host: bool = False

    @property
    def architecture(self) -> Architecture:
        return shape_of(f"galactica-{self.shape}")

    @property
    def rank(self) -> int:
        return self.tuning.rank if isinstance(self.tuning, Lora) else 0

    @property
    def num_trained(self) -> int:
        adapters = num_adapter_weights(self.architecture, self.rank)
        return adapters + (num_parameters(self.architecture) if self.tuning.held.trains_all else 0)

    @property
    def moment_bytes(self) -> float:
        return {"float32": 8.0, "bfloat16": 4.0}[self.moments]


ONE_CARD = (
    Way("6.7b full", "6.7b", recomputation="selective"),
    Way("6.7b full, bf16 moments", "6.7b", recomputation="selective", moments="bfloat16"),
    Way("6.7b full, bf16 moments", "6.7b", recomputation="full", max_tokens=2_048, moments="bfloat16"),
    Way("6.7b full, moments on host", "6.7b", recomputation="full", on_host=True),
    Way("6.7b LoRA", "6.7b", Lora(), "full"),
    Way("6.7b QLoRA", "6.7b", QLora(), "full"),
    Way("1.3b full", "1.3b", max_tokens=8_192),
    Way("1.3b full", "1.3b", recomputation="selective", max_tokens=8_192),
)
FOUR_CARDS = (
    Way("6.7b full", "6.7b"),
    Way("6.7b full", "6.7b", recomputation="selective", max_tokens=8_192),
    Way("6.7b LoRA, ddp", "6.7b", Lora(), "full"),
    Way("1.3b full", "1.3b"),
)


@dataclass(frozen=True)
class PerUnit:
    """Bytes by what they are proportional to.

    Attributes:
        elementwise: of each token, layer and unit of the hidden size.
        casts: of each parameter and micro-batch.
        accumulation: of each parameter and micro-batch after the first.
        update: of each trained parameter, with norm and clipping, by the moments' dtype.
    """

    elementwise: float
    casts: float
    accumulation: float
    update: Mapping[str, float]
    source: str


def per_unit(results: Path = RESULTS) -> PerUnit:
    """From the newest file of ``bench.bytes``: 6.7B in bf16-mixed on one card, micro-batches of 4,096 tokens.

    Raises:
        SystemExit: it has not been counted.
    """
    files = sorted(results.glob("*_bytes_*.json"))
    wanted = {"shape": "6.7b", "precision": "bf16-mixed", "strategy": "single", "tokens_per_micro_batch": 4_096}
    rows = json.loads(files[-1].read_text(encoding="utf-8"))["rows"] if files else []
    counted = {row["moments"]: row for row in rows if wanted.items() <= row.items()}
    if counted.keys() != {"float32", "bfloat16"}:
        sys.exit(f"{results} has no bytes of 6.7B's step: python -m bench.bytes --shapes 6.7b counts them")
    architecture = shape_of("galactica-6.7b")
    parameters, row = num_parameters(architecture), counted["float32"]
    tokens, micro_batches = planned(1, row["tokens_per_micro_batch"])[:2]
    return PerUnit(
        _gb(row, "elementwise") / (tokens * architecture.num_layers * architecture.hidden_size),
        _gb(row, "casts") / (parameters * micro_batches),
        _gb(row, "accumulation") / (parameters * (micro_batches - 1)),
        {moments: _gb(row, "norm", "update") / parameters for moments, row in counted.items()},
        files[-1].name,
    )


def _gb(row: Mapping[str, Any], *kinds: str) -> float:
    return float(sum(row["gigabytes"][kind] for kind in kinds)) * 1e9


@cache
def planned(num_ranks: int, max_tokens: int) -> tuple[float, float, float]:
    """Tokens, micro-batches of a rank, and squared lengths of a step of 128 of Alpaca's examples; means."""
    plan = alpaca_plan(max_tokens, num_ranks)
    steps = [plan.step(k) for k in range(_PLANNED_STEPS)]
    return (
        float(np.mean([step.num_tokens for step in steps])),
        float(np.mean([len(step.micro_batches[0]) for step in steps])),
        float(np.mean([step.num_attention_pairs for step in steps])),
    )


@dataclass(frozen=True)
class Prediction:
    """One way on some cards; seconds of a step by their terms.

    Attributes:
        exposed: of gathers and reductions, what the products do not hide.
        transfers: of moments from host memory, while others go back; nothing hides them.
        memory: of a card.
    """

    card: str
    num_cards: int
    way: Way
    products: float
    moved: float
    links: float
    exposed: float
    transfers: float
    gaps: float
    mfu: float
    tokens_per_second: float
    micro_batches: float
    memory: MemoryParts

    @property
    def seconds(self) -> float:
        return self.products + self.moved + self.exposed + self.transfers + self.gaps


def predict(card: Card, num_cards: int, way: Way, unit: PerUnit) -> Prediction:
    """A step of 128 examples."""
    tokens, micro_batches, pairs = planned(num_cards, way.max_tokens)
    architecture = way.architecture
    tuned = Tuned(way.tuning.flops_per_weight, num_adapter_weights(architecture, way.rank))
    useful = step_flops(architecture, int(tokens), int(pairs), tuned)
    again = _RECOMPUTED_FLOPS[way.recomputation] * architecture.matmul_parameters * tokens
    share = card.product_share * (_NARROW if architecture.hidden_size <= _NARROW_HIDDEN else 1.0)
    products = (useful + again) / num_cards / (card.peak * share)
    moved = _moved_bytes(way, num_cards, tokens, micro_batches, unit) / (card.bytes_per_second * _BANDWIDTH)
    links = _linked_bytes(way, num_cards, micro_batches) / (card.link_bytes_per_second * _LINKS)
    exposed = max(0.0, links - _OVERLAP * products)
    on_host = way.moment_bytes * way.num_trained / num_cards if way.on_host else 0.0
    transfers = on_host / (card.host_bytes_per_second * _LINKS)
    gaps = _GAPS * (products + moved + exposed + transfers)
    seconds = products + moved + exposed + transfers + gaps
    mfu = useful / seconds / (card.peak * num_cards)
    parts = memory(way, num_cards)
    terms = (products, moved, links, exposed, transfers, gaps, mfu, tokens / seconds, micro_batches)
    return Prediction(card.name, num_cards, way, *terms, parts)


def _moved_bytes(way: Way, num_cards: int, tokens: float, micro_batches: float, unit: PerUnit) -> float:
    """Of one card's memory in a step, beside its products."""
    architecture, trained = way.architecture, way.num_trained
    each = tokens / num_cards * architecture.num_layers * architecture.hidden_size
    moved = unit.elementwise * _RECOMPUTED_BYTES[way.recomputation] * each
    held = trained / (num_cards if _is_sharded(way, num_cards) else 1)
    moved += unit.accumulation * held * max(0.0, micro_batches - 1) + unit.update[way.moments] * held
    if not way.tuning.held.trains_all:
        # A frozen base in 16 bits needs no cast; in 4 bits its matrices are made again for each product.
        passes = 3 if way.recomputation == "full" else 2
        return moved + way.tuning.held.scratch * num_parameters(architecture) * passes * micro_batches
    if _is_sharded(way, num_cards):
        # Own share to 16 bits for each gather, the whole gradient from 16 to 32 bits for each reduction.
        return moved + (2 * 6.0 * held + (6.0 + _THROUGH_MEMORY_BYTES) * trained) * micro_batches
    return moved + unit.casts * trained * micro_batches


def _linked_bytes(way: Way, num_cards: int, micro_batches: float) -> float:
    """That one card sends in a step: two gathers in 16 bits and a reduction in 32 of each micro-batch; or, of adapters
    under ddp, their gradients once."""
    others = (num_cards - 1) / num_cards
    if _is_sharded(way, num_cards):
        return (2 * 2.0 + 4.0) * way.num_trained * others * micro_batches
    return 2 * 4.0 * way.num_trained * others if num_cards > 1 else 0.0


def _is_sharded(way: Way, num_cards: int) -> bool:
    return num_cards > 1 and not way.tuning.mixes_dtypes


def memory(way: Way, num_cards: int) -> MemoryParts:
    """Of one card."""
    model = TrainedModel(
        way.architecture,
        way.tuning.held,
        way.rank,
        state_bytes=0.0 if way.on_host else way.moment_bytes,
        room_bytes=HOST_MOMENTS_ROOM_BYTES if way.on_host else 0.0,
    )
    sharded = _is_sharded(way, num_cards)
    strategy = "single" if num_cards == 1 else "fsdp" if sharded else "ddp"
    sharding = Sharding(num_cards, gathers=True) if sharded else Sharding(num_copies=num_cards)
    kind = Kind("opt", strategy, way.tuning.timeline or "", "wide", way.recomputation)
    return step_memory(kind, model, Fullest.of(way.max_tokens), sharding)


def predictions(unit: PerUnit) -> list[Prediction]:
    return [
        predict(card, num_cards, way, unit)
        for num_cards, ways in ((1, ONE_CARD), (4, FOUR_CARDS))
        for card in CARDS
        for way in ways
    ]


_HEADINGS = (
    "cards", "what", "recomputation, tokens", "micro-batches", "products", "bytes", "links, of them exposed", "host",
    "gaps", "step", "MFU", "tokens/s", "GiB",
)  # fmt: skip


def table(found: Sequence[Prediction]) -> str:
    """In Markdown; seconds."""
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + " --- |" * len(_HEADINGS)]
    memory_gib = {card.name: card.memory_gib for card in CARDS}
    for one in found:
        what = [f"{one.num_cards} x {one.card}", one.way.name, f"{one.way.recomputation}, {one.way.max_tokens:,}"]
        needed, room = one.memory.total / GIB, memory_gib[one.card]
        if needed > room:
            lines.append("| " + " | ".join([*what, *[""] * 9, f"needs {needed:.0f} of {room:.0f}"]) + " |")
            continue
        links = f"{one.links:.2f}, {one.exposed:.2f}" if one.links >= 0.005 else ""
        host = f"{one.transfers:.2f}" if one.transfers else ""
        terms = [f"{one.products:.2f}", f"{one.moved:.2f}", links, host, f"{one.gaps:.2f}", f"{one.seconds:.2f}"]
        ends = [f"{one.mfu:.0%}", f"{one.tokens_per_second:,.0f}", f"{needed:.0f}"]
        lines.append("| " + " | ".join([*what, f"{one.micro_batches:.1f}", *terms, *ends]) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.predictions", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of a JSON file with all terms")
    given = parser.parse_args()
    unit = per_unit()
    found = predictions(unit)
    print(f"est., not measured; bytes from {unit.source}\n\n{table(found)}")
    if given.out:
        rows = [{**asdict(one), "way": one.way.name, "seconds": one.seconds} for one in found]
        print(f"written: {save('predictions', {'rows': rows, 'bytes_from': unit.source}, given.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
