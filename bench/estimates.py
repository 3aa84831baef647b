"""``python -m bench.estimates``: memory by the closed form against memory as it is traced, cell by cell.

The closed form's timelines were recorded of models that are none of these. ``--share N`` takes every Nth cell.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from bench.results import RESULTS, save
from galpaca.app.config.composition import compose
from galpaca.app.config.shapes import raw_shape
from galpaca.app.estimate.candidate import Candidate
from galpaca.app.estimate.traced import Trace
from galpaca.app.estimate.tracing import run_trace
from galpaca.estimate.gpus import gpu_named
from galpaca.estimate.memory import Fullest, step_memory
from galpaca.estimate.speed import Cluster
from galpaca.model.compute_spec import RECOMPUTATIONS

# Relative, of what torch allocates at a step's fullest moment.
TOLERANCE = 0.03
CARD = "h100"
MODULE = "galpaca.app.estimate.traced"
MODELS = ("galactica-125m", "galactica-1.3b", "galactica-6.7b", "galactica-30b", "smollm2-135m", "llama-3.2-3b")
_SHARDED, _ADAPTERS = ("fsdp", "fsdp2"), ("lora", "qlora")
WAYS = (
    *((strategy, "full") for strategy in ("single", "ddp", *_SHARDED)),
    *((strategy, tuning) for tuning in _ADAPTERS for strategy in ("single", "ddp", "fsdp2")),
)
_TOKENS, _RANKS = (1_024, 4_096, 2_048), (4, 8)
_TARGET_SHARE = 0.55


class Cell(NamedTuple):
    """A way to train a model.

    Attributes:
        devices: ranks.
        is_only: a step has one micro-batch.
    """

    model: str
    strategy: str
    tuning: str
    recomputation: str
    devices: int
    num_tokens: int
    is_only: bool

    @property
    def name(self) -> str:
        shown = f"{self.model}, {self.strategy} on {self.devices}, {self.tuning}, recomputing {self.recomputation}"
        return f"{shown}, {self.num_tokens:,} tokens{', one micro-batch' if self.is_only else ''}"

    @property
    def overrides(self) -> list[str]:
        return [
            "+experiment=galpaca67b",
            "run.name=traced",
            "model.dropout=null",
            f"model={self.model}",
            f"strategy={self.strategy}",
            f"tuning={self.tuning}",
            f"compute.activation_checkpointing={self.recomputation}",
            f"trainer.devices={self.devices}",
        ]

    @property
    def fullest(self) -> Fullest:
        targets = round(_TARGET_SHARE * self.num_tokens / 64) * 64
        return Fullest(self.num_tokens, targets, is_only=self.is_only)

    def closed(self) -> float:
        """Bytes by the closed form."""
        config, _ = compose(self.overrides)
        one = Candidate.of(config, Cluster(gpu_named("H100"), self.devices))
        return step_memory(one.kind, one.model, self.fullest, one.sharding).allocated

    def trace(self) -> Trace:
        count = 1 if self.is_only else 2
        fullest = self.fullest
        return Trace(
            overrides=self.overrides,
            config=raw_shape(self.model),
            num_tokens=fullest.num_tokens,
            num_targets=fullest.num_targets,
            num_examples=fullest.num_tokens // 100,
            longest_tokens=512,
            micro_batches=(count, count),
        )


def cells() -> Iterator[Cell]:
    """Every model in every way, recomputation, tokens and ranks in turn; then with a single micro-batch a step."""
    how, tokens, ranks = cycle(RECOMPUTATIONS), cycle(_TOKENS), cycle(_RANKS)
    for model in MODELS:
        for strategy, tuning in WAYS:
            devices = 1 if strategy == "single" else next(ranks)
            yield Cell(model, strategy, tuning, next(how), devices, next(tokens), is_only=False)
        next(how)  # else each way would meet the same one in every model
    for model in MODELS:
        for strategy, recomputation in zip(("single", "fsdp", "fsdp2"), RECOMPUTATIONS, strict=True):
            devices = 1 if strategy == "single" else next(ranks)
            yield Cell(model, strategy, "full", recomputation, devices, next(tokens), is_only=True)


def compared(cell: Cell) -> dict[str, Any]:
    """Both figures, and by how much the closed form is off.

    Raises:
        GalpacaError: the step could not be traced.
    """
    traced, closed = run_trace(cell.trace(), CARD).peak, cell.closed()
    return {**cell._asdict(), "traced_bytes": traced, "closed_bytes": round(closed), "off": closed / traced - 1}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In Markdown; GiB."""
    lines = ["| cell | traced, GiB | closed form, GiB | off |", "| --- | --- | --- | --- |"]
    for row in rows:
        cell = Cell(**{name: row[name] for name in Cell._fields})
        traced, closed = row["traced_bytes"] / 2**30, row["closed_bytes"] / 2**30
        lines.append(f"| {cell.name} | {traced:.2f} | {closed:.2f} | {100 * row['off']:+.2f} % |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.estimates", description=__doc__)
    parser.add_argument("--share", type=int, default=1, metavar="N", help="every Nth cell")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the figures (%(default)s)")
    given = parser.parse_args()
    chosen = list(cells())[:: given.share]
    rows = []
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        for row in pool.map(compared, chosen):
            rows.append(row)
            print(table([row]).splitlines()[-1], flush=True)
    worst = max(rows, key=lambda row: abs(row["off"]))
    print(f"{len(rows)} cells, at most {100 * abs(worst['off']):.2f} % off, {100 * TOLERANCE:.0f} % are allowed")
    content = {"card": CARD, "tolerance": TOLERANCE, "largest_off": abs(worst["off"]), "rows": rows}
    print(f"written: {save('estimates', content, given.out)}")
    return 0 if abs(worst["off"]) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
