"""``python -m bench.adapters``: every way of tuning with every seed, in turns, then a table and a file of results."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.adapters.comparison import (
    Results,
    check_same_recipe,
    difference_lines,
    figures,
    measure_losses,
    table,
)
from bench.adapters.records import Pairs, make_pairs, write_pairs
from bench.adapters.turns import THREADS, Turn, make_base, take_turn
from bench.adapters.workload import (
    ADAPTER_LR,
    EXAMPLES_PER_STEP,
    FULL_LR,
    METHODS,
    PEFT,
    Workload,
)
from bench.peers.outcome import WARM_UP_STEPS
from bench.results import RESULTS, save
from galpaca.app.console import make_console
from galpaca.errors import GalpacaError, InputError, Problems

_NOTES = [
    "Held out: other pairs of the same facts, in unseen wordings. Other subjects: pairs of facts not tuned on.",
    "Intervals are over records. How much a loss differs from seed to seed is in none of them: see the single seeds.",
    f"Timed: optimizer steps after {WARM_UP_STEPS} of warm-up, loading of data included; no imports, no encoding.",
    "Memory: the largest resident size of a training's process, from its imports until the whole model is written.",
]


def main() -> int:
    console = make_console()
    try:
        return compare(arguments(), console)
    except GalpacaError as error:
        console.print(str(error), markup=False)
        return error.exit_code


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.adapters", description=__doc__)
    parser.add_argument("--only", default=",".join(METHODS), help="ways of tuning (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="of tuning (%(default)s)")
    parser.add_argument("--base-epochs", type=int, help="of the demo, for a try (the demo's own)")
    parser.add_argument("--folder", type=Path, help="where to train; the base in it is kept (a temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    return parser.parse_args()


def compare(given: argparse.Namespace, console: Console) -> int:
    methods = check_arguments(given)
    started = time.perf_counter()
    given.out.mkdir(parents=True, exist_ok=True)
    with _folder(given.folder) as folder:
        pairs = make_pairs(EXAMPLES_PER_STEP)
        write_pairs(folder, pairs)
        workload = Workload(str(folder), len(pairs.tuned), given.epochs)
        workload.save()
        console.print("training the demo, which all ways start from")
        make_base(folder, given.base_epochs)
        results = train_and_measure(methods, range(1, given.seeds + 1), workload, console)
    minutes = round((time.perf_counter() - started) / 60, 1)
    console.print(table(results))
    for line in [*difference_lines(results), *_NOTES]:
        console.print(line, markup=False)
    found = {**about(workload, pairs), "minutes": minutes, **figures(results)}
    console.print(f"written: {save('adapters', found, given.out)}")
    return 0


def check_arguments(given: argparse.Namespace) -> list[str]:
    """The ways of tuning requested, in their usual order.

    Raises:
        InputError: options that train nothing, or PEFT is not there; all at once.
    """
    problems = Problems()
    requested = given.only.split(",")
    for name in requested:
        problems.check_choice("--only", name, METHODS)
    problems.check_at_least_one("--", {"seeds": given.seeds, "epochs": given.epochs})
    if PEFT in requested and find_spec("peft") is None:
        ours = ",".join(name for name in METHODS if name != PEFT)
        problems.add("PEFT is not installed", where=PEFT, fix=f"pip install peft, or --only {ours}")
    problems.raise_any()
    return [name for name in METHODS if name in requested]


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """The folder given, which is kept, or a temporary one."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="galpaca-adapters-") as name:
            yield Path(name)
        return
    try:
        given.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder cannot be made: {error.strerror}", where=given, fix="--folder FOLDER") from None
    yield given.resolve()


def train_and_measure(methods: list[str], seeds: range, workload: Workload, console: Console) -> Results:
    """All ways with one seed, then with the next, so that what slows the machine down for a while slows all of them.

    Losses are measured when all is trained: a process's peak of memory is never less than its parent's.
    """
    turns: dict[tuple[str, int], Turn] = {}
    for seed in seeds:
        for method in methods:
            turn = turns[method, seed] = take_turn(method, seed, workload)
            console.print(
                f"seed {seed}  {method:<10}{turn.outcome.examples_per_second:8.2f} examples/s, training loss "
                f"{turn.outcome.losses[0]:.3f} to {turn.outcome.losses[-1]:.3f}"
            )
    check_same_recipe(turns)
    losses = {
        (method, seed): measure_losses(workload.tuned(method, seed) / "model", workload) for method, seed in turns
    }
    return Results(turns, losses, measure_losses(workload.base, workload))


def about(workload: Workload, pairs: Pairs) -> dict[str, Any]:
    return {
        "records": {name: len(records) for name, records in pairs._asdict().items()},
        "examples_per_step": EXAMPLES_PER_STEP,
        "steps": workload.num_steps,
        "epochs": workload.num_epochs,
        "learning_rate": {"full": FULL_LR, "adapters": ADAPTER_LR},
        "threads": THREADS,
        "notes": _NOTES,
    }


if __name__ == "__main__":
    sys.exit(main())
