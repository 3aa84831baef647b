"""``python -m bench.bytes``: what an optimizer step moves in a card's memory, by part, counted without a card.

Layers are compiled for a pretended card (``galpaca.fake_cuda``), and what Inductor's kernels, torch's own and the
optimizer would read and write is added up. Matrix products, attention and communication are left out. Some ten minutes
on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from bench.bytes.what_if import what_if
from bench.gpu.workload import SHAPES
from bench.results import REPOSITORY, RESULTS, save
from galpaca.fake_cuda.card import CARDS
from galpaca.fake_cuda.process import command

PRECISIONS, STRATEGIES, TOKENS = ("bf16-mixed", "16-mixed"), ("single", "fsdp"), (4_096, 8_192)
_PARTS = ("elementwise", "casts", "accumulation", "norm", "update", "total")


def main() -> int:
    given = _arguments()
    print(_line(["shape", "precision", "strategy", "tokens", "moments", *_PARTS, "B/param", "GiB kept"]))
    rows = []
    for row in (row for shape in given.shapes for row in _counted(given.card, _settings(shape))):
        rows.append(row)
        _show(row)
    if given.what_if:
        for row in [row for row in rows if row["strategy"] == "single" and row["moments"] == "float32"]:
            for changed in what_if(row):
                _show(changed)
    path = save("bytes", {"card": CARDS[given.card].name, "rows": rows}, given.out)
    print(f"written to {path}")
    return 0


def _settings(shape: str) -> list[dict[str, Any]]:
    return [
        {"shape": shape, "precision": precision, "strategy": strategy, "tokens_per_micro_batch": tokens}
        for precision, strategy, tokens in product(PRECISIONS, STRATEGIES, TOKENS)
    ]


def _counted(card: str, settings: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows as they come, from a process with the card."""
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    environment = {**os.environ, "PYTHONPATH": path, "TORCH_LOGS": "-all"}
    line = command(card, "bench.bytes.count", json.dumps(settings))
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for text in process.stdout:
            yield from json.loads(text)
    if process.returncode:
        sys.exit(process.returncode)


def _show(row: dict[str, Any]) -> None:
    parts = [f"{row['gigabytes'][name]:.1f}" for name in _PARTS]
    names = [row["shape"], row["precision"], row["strategy"], f"{row['tokens_per_micro_batch']:,}", row["moments"]]
    beside = [f"{row['norm_and_update_bytes_per_parameter']:.0f}", f"{row['gib_kept_for_backward']:.1f}"]
    print(_line([*names, *parts, *beside]) + (f"  {row['if']}" if "if" in row else ""), flush=True)


def _line(cells: list[str]) -> str:
    return " ".join(f"{cell:>12}" for cell in cells)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.bytes", description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(reversed(SHAPES)), metavar="SHAPE")
    parser.add_argument("--card", choices=CARDS, default="h200", help="pretended card (default: %(default)s)")
    parser.add_argument("--what-if", action="store_true", help="also what changes that are not made would move")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the figures (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
