"""``--multirun``: one run after the other for all combinations of values, each a process of its own.

Hydra's own sweeps run all jobs in one process and write into ``multirun/``; ranks that Lightning launches from there do
not know which job is theirs.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

from galpaca.app.cluster.ranks import global_rank
from galpaca.app.config.composition import compose, with_home
from galpaca.app.config.habits import MULTIRUN
from galpaca.app.config.messages import config_error
from galpaca.errors import GalpacaError, InputError, Problems
from galpaca.runs.folder import RunFolder
from galpaca.runs.shutdown import Shutdown, signal_of

# Between two looks whether the sweep was stopped while a run is under way.
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """One combination of values.

    Attributes:
        overrides: of ``train.py``.
        folder: of its run.
    """

    overrides: Sequence[str]
    folder: Path


def sweep(arguments: Sequence[str]) -> None:
    """Runs all jobs; one that fails does not keep the others from running.

    Args:
        arguments: of ``train.py``, with values to sweep over separated by commas.

    Raises:
        InputError: anything that a job's configuration would be refused for, or two jobs of one run folder; before the
            first job begins.
        GalpacaError: a job failed.
        StoppedBySignal: the job at hand was stopped, and those behind it were not started.
    """
    given = [word for word in arguments if word not in MULTIRUN]
    if flags := [word for word in given if word.startswith("-")]:
        raise InputError(f"{flags[0]} shows one run, not a sweep", where="--multirun", fix="leave out one of the two")
    jobs = _jobs(with_home(given))
    failed = []
    for number, job in enumerate(jobs, start=1):
        if global_rank() == 0:
            print(f"\nrun {number} of {len(jobs)}: {job.folder}", flush=True)
        if code := _run(job):
            failed.append(f"{job.folder} (exit code {code})")
    if failed:
        fix = "rerun the command: complete runs stay as they are, and others resume"
        raise GalpacaError(f"{len(failed)} of {len(jobs)} runs failed", where=", ".join(failed), fix=fix)
    if global_rank() == 0:
        root = jobs[0].folder.parent
        print(f"\nall {len(jobs)} runs are complete; galpaca runs {root} compares them", flush=True)


def _jobs(overrides: Sequence[str]) -> list[Job]:
    jobs = []
    with Problems() as problems:
        found = [problems.collect(partial(_values_of, override)) for override in overrides]
        problems.raise_any()
        choices = [values for values in found if values is not None]
        for words in product(*choices):
            composed = problems.collect(partial(compose, words))
            if composed is None:
                break  # the others have the same mistakes
            run = composed[0].run
            jobs.append(Job(words, RunFolder(Path(run.root), run.name).path))
    _check_folders(jobs, [values[0].partition("=")[0] for values in choices if len(values) > 1])
    return jobs


def _values_of(override: str) -> list[str]:
    """The override with each of its values; a list in brackets, and what is quoted, is one value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, OverrideParseException

    try:
        [parsed] = OverridesParser.create().parse_overrides([override])
    except OverrideParseException as error:
        raise config_error(error, [override]) from None
    if not parsed.is_sweep_override():
        return [override]
    key = parsed.get_key_element()
    try:
        values = [f"{key}={value}" for value in parsed.sweep_string_iterator()]
    except HydraException:  # of an interval, which has no end of them, or of a pattern
        values = []
    if not values:
        raise InputError("a sweep needs a list of values", where=override, fix=f"{key}=A,B,C, or {key}=range(1,4)")
    return values


def _check_folders(jobs: Sequence[Job], swept: Sequence[str]) -> None:
    folders = [job.folder for job in jobs]
    if len(set(folders)) == len(folders):
        return
    double = next(folder for folder in folders if folders.count(folder) > 1)
    values = "-".join(f"${{{key.lstrip('+~')}}}" for key in swept) or "NAME"
    raise InputError(
        f"{folders.count(double)} of {len(jobs)} runs would be in one folder",
        where=double,
        why="a run folder belongs to one run, which is resumed there",
        fix=f"'run.name=sweep/{values}'",
    )


def _run(job: Job) -> int:
    """Its exit code. A signal is the run's as well, which saves; then the sweep stops."""
    shutdown = Shutdown.of_process()
    with shutdown.deferring():
        process = subprocess.Popen([sys.executable, "-m", "galpaca.train", *job.overrides])
        told = 0
        while True:
            try:
                code = process.wait(_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if shutdown.urgency > told:
                    told = shutdown.urgency
                    if signal_of(told) != signal.SIGINT:  # a terminal sends that to both, and twice ends at once
                        process.send_signal(signal_of(told))
        shutdown.check(f"the sweep, at {job.folder},")
    return code
