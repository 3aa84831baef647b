"""``python -m bench.peers``: all contenders in turn, as often as requested, then a table and a file of results."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from bench.peers.comparison import NOT_COMPARABLE, Repeat, check_same_training, figures, table
from bench.peers.folder_workload import Steps, make_folder_workload
from bench.peers.outcome import WARM_UP_STEPS
from bench.peers.turns import CONTENDERS, check_installed, remove_trace, take_turn, threads
from bench.peers.workload import (
    EXAMPLES_PER_MICRO_BATCH,
    EXAMPLES_PER_STEP,
    LONGEST_EXAMPLE_TOKENS,
    Shape,
    Workload,
    make_workload,
)
from bench.results import REPOSITORY, RESULTS, save
from galpaca.app.console import make_console
from galpaca.errors import GalpacaError, InputError, Problems

_DATA = REPOSITORY.parent / "shared" / "data" / "alpaca_999.json"
_FEWEST_TIMED_STEPS = 2
_NOTES = [
    "Dropout is 0 everywhere, so that losses can be compared.",
    f"Timed: optimizer steps after {WARM_UP_STEPS} of warm-up, loading of data included; no imports, no encoding.",
    "trl_packed: losses are not compared. A step holds other examples than galpaca's, and without FlashAttention OPT "
    "attends over the whole packed row, so that an example sees those before it.",
]
_OF_A_FOLDER = [*_NOTES[:-1], "trl_packed: losses are not compared. A step holds other examples than galpaca's."]


def main() -> int:
    console = make_console()
    try:
        return compare(arguments(), console)
    except GalpacaError as error:
        console.print(str(error), markup=False)
        return error.exit_code


def compare(given: argparse.Namespace, console: Console) -> int:
    names = check_arguments(given)
    check_installed(names)
    make_folder(given.out)
    with tempfile.TemporaryDirectory(prefix="galpaca-peers-") as folder:
        workload = workload_in(Path(folder), given)
        show_workload(console, workload)
        repeats = [
            run_repeat(number, given.repeats, names, workload, console) for number in range(1, given.repeats + 1)
        ]
    console.print(table(repeats))
    for note in workload_notes(workload) if set(NOT_COMPARABLE) & set(names) else _NOTES[:-1]:
        console.print(note)
    console.print(f"written: {save('peers', {**about(workload), **figures(repeats)}, given.out)}")
    return 0


def workload_in(folder: Path, given: argparse.Namespace) -> Workload:
    """That of a random OPT, or with ``--model`` of a model that exists."""
    budgets = {"max_tokens": given.max_tokens, "packed_rows": given.packed_rows}
    if given.model is not None:
        steps = Steps(given.steps, given.step_examples, given.lr)
        return make_folder_workload(folder, given.data, given.model, steps, row_tokens=given.max_length, **budgets)
    shape = Shape(given.hidden_size, given.layers, given.heads, given.ffn_size, given.max_length)
    return make_workload(folder, given.data, shape, num_records=given.records, num_steps=given.steps, **budgets)


def workload_notes(workload: Workload) -> list[str]:
    return _NOTES if workload.tokenizer is not None else _OF_A_FOLDER


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--data", type=Path, default=_DATA, help="Alpaca-format records (%(default)s)")
    parser.add_argument(
        "--records", type=int, default=256, help="whole steps of 128 are taken, or one of fewer (%(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns of each contender (%(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="of a turn, the first of them not timed (%(default)s)")
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders (%(default)s)")
    parser.add_argument("--model", type=Path, help="a folder with a chat template, instead of a random OPT")
    parser.add_argument(
        "--step-examples", type=int, default=EXAMPLES_PER_STEP, help="of a step, with --model (%(default)s)"
    )
    parser.add_argument("--lr", type=float, default=2e-5, help="learning rate, with --model (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=4096, help="galpaca's micro-batch, tokens (%(default)s)")
    parser.add_argument("--packed-rows", type=int, default=4, help="of a micro-batch of trl_packed (%(default)s)")
    parser.add_argument("--hidden-size", type=int, default=256, help="(%(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--heads", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--ffn-size", type=int, default=1024, help="(%(default)s)")
    parser.add_argument("--max-length", type=int, default=512, help="positions, padded and packed rows (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    return parser.parse_args()


def check_arguments(given: argparse.Namespace) -> list[str]:
    """The contenders requested, in their usual order.

    Raises:
        InputError: options that do not make whole steps or name no contender; all at once.
    """
    problems = Problems()
    for option in (
        "repeats",
        "packed_rows",
        "max_tokens",
        "step_examples",
        "hidden_size",
        "layers",
        "heads",
        "ffn_size",
    ):
        if getattr(given, option) < 1:
            name = f"--{option.replace('_', '-')}"
            problems.add(f"{getattr(given, option)} is too few", where=name, fix=f"{name} 1 or more")
    requested = given.only.split(",")
    for name in requested:
        problems.check_choice("--only", name, CONTENDERS)
    if given.records < EXAMPLES_PER_MICRO_BATCH:
        problems.add(
            f"{given.records} records are too few", where="--records", fix=f"{EXAMPLES_PER_MICRO_BATCH} or more"
        )
    if given.steps < WARM_UP_STEPS + _FEWEST_TIMED_STEPS:
        fewest = WARM_UP_STEPS + _FEWEST_TIMED_STEPS
        problems.add(f"{given.steps} steps are too few", where="--steps", fix=f"--steps {fewest} or more")
    if given.heads > 0 and given.hidden_size % given.heads:
        problems.add(
            f"{given.hidden_size} is no multiple of {given.heads} heads", where="--heads", fix="a divisor of it"
        )
    if given.model is None and given.max_length < LONGEST_EXAMPLE_TOKENS:
        problems.add(
            f"examples may have {LONGEST_EXAMPLE_TOKENS} tokens, more than {given.max_length}",
            where="--max-length",
            fix=f"--max-length {LONGEST_EXAMPLE_TOKENS} or more",
        )
    problems.raise_any()
    return [name for name in CONTENDERS if name in requested]


def make_folder(folder: Path) -> None:
    """Makes the folder of results before anything is measured, so that no measurement is lost for want of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder cannot be made: {error.strerror}", where=folder, fix="--out FOLDER") from None


def run_repeat(number: int, count: int, names: list[str], workload: Workload, console: Console) -> Repeat:
    """All contenders in turn; fails at once if they did not train the same."""
    repeat: Repeat = {}
    for name in names:
        remove_trace(workload, name)
        repeat[name] = take_turn(name, workload)
        speed = repeat[name].examples_per_second
        console.print(f"repeat {number}/{count}  {name:<15}{speed:8.2f} examples/s")
    check_same_training(repeat)
    return repeat


def show_workload(console: Console, workload: Workload) -> None:
    shape = workload.shape
    what = "OPT with random weights" if workload.tokenizer is not None else "the folder's model"
    console.print(
        f"{what}: {shape.num_layers} layers, hidden size {shape.hidden_size}; the head has "
        f"{workload.head_share:.1%} of the matrix products"
    )
    console.print(
        f"{workload.num_records} records of {workload.mean_tokens:.1f} tokens on average, "
        f"{workload.num_steps} steps of {workload.step_examples} examples, {threads()} threads"
    )


def about(workload: Workload) -> dict[str, object]:
    return {
        "model": asdict(workload.shape),
        "records": workload.num_records,
        "mean_tokens": workload.mean_tokens,
        "head_share": workload.head_share,
        "examples_per_step": workload.step_examples,
        "steps": workload.num_steps,
        "max_tokens": workload.max_tokens,
        "packed_rows": workload.packed_rows,
        "max_length": workload.shape.positions,
        "lr": workload.lr,
        "threads": threads(),
        "notes": workload_notes(workload),
    }


if __name__ == "__main__":
    sys.exit(main())
