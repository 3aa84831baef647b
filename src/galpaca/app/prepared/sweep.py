"""``galpaca prepare --sweep``: all runs of a list for ``slurm/sweep.sbatch``, checked together and prepared once."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from galpaca.app.cluster.sbatch import SCRIPTS, sweep_line
from galpaca.app.config.composition import compose
from galpaca.app.config.schema import Config
from galpaca.app.console import make_console
from galpaca.app.prepared.places import show_next
from galpaca.app.prepared.prepare import prepare_one
from galpaca.errors import InputError, Problems, restated


@dataclass(frozen=True)
class ListedRun:
    """A run of a list.

    Attributes:
        number: of the run, as the task of an array that trains it.
        line: of the file, from 1.
        overrides: its own.
    """

    number: int
    line: int
    overrides: tuple[str, ...]


def prepare_sweep(path: Path, overrides: Sequence[str]) -> None:
    """Prepares what the runs need, each thing once, and prints the command that submits them.

    Args:
        path: the list.
        overrides: those of all runs.

    Raises:
        InputError: the list cannot be read; runs that cannot be composed, all at once; or as ``prepare``.
    """
    console = make_console()
    runs = read_list(path)
    with Problems() as problems:
        composed = [problems.collect(partial(_composed, path, run, overrides)) for run in runs]
    configs = [config for config in composed if config is not None]
    distinct = {repr((one.data, one.model, one.batch, one.trainer, one.seed)): one for one in configs}
    for config in distinct.values():
        prepare_one(config, console)
    console.print(
        f"\n{len(distinct):,} prepared, which is all that the {len(runs):,} runs of {path} need", markup=False
    )
    show_next(console, _next_lines(path, runs, overrides, configs[0]))


def _next_lines(path: Path, runs: Sequence[ListedRun], overrides: Sequence[str], config: Config) -> list[str]:
    """What submits the runs where the scripts are, and elsewhere each by itself."""
    if SCRIPTS.is_dir():
        return [sweep_line(path, len(runs), overrides, config)]
    return [shlex.join(["galpaca", "train", *_of_run(path, run, overrides)]) for run in runs]


def _of_run(path: Path, run: ListedRun, overrides: Sequence[str]) -> list[str]:
    return [*overrides, *run.overrides, f"run.name={path.stem}/{run.number:03d}"]


def read_list(path: Path) -> list[ListedRun]:
    """The runs of a list, as ``slurm/sweep.sbatch`` counts them: empty lines and those that begin with # are none.

    Raises:
        InputError: it cannot be read, has no run, or quotes that are not closed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fix = "--sweep FILE, with the overrides of a run in each line"
        why = getattr(error, "strerror", None) or str(error)
        raise InputError("the list cannot be read", where=path, why=why, fix=fix) from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    runs = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not runs:
        raise InputError("the list has no run", where=path, fix="write a line such as optim.lr=1e-5")
    with Problems() as problems:
        words = [problems.collect(partial(_words, path, *run)) for run in runs]
    return [
        ListedRun(place, number, tuple(given or ()))
        for place, ((number, _), given) in enumerate(zip(runs, words, strict=True), start=1)
    ]


def _words(path: Path, number: int, line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        raise InputError("unclosed quote", where=f"{path}, line {number}", fix="close it, or leave it out") from None


def _composed(path: Path, run: ListedRun, overrides: Sequence[str]) -> Config:
    def named(error: InputError) -> InputError:
        return InputError(error.what, where=f"{path}, line {run.line}: {error.where}", why=error.why, fix=error.fix)

    with restated(named):
        return compose(_of_run(path, run, overrides))[0]
