"""``galpaca rehearse``: the real run from start to release, on its own machine, in minutes instead of hours."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console

from galpaca.app.cluster.launch import check_launch
from galpaca.app.cluster.ranks import global_rank, num_launched
from galpaca.app.config.composition import compose
from galpaca.app.config.schema import Config
from galpaca.app.console import show_rows
from galpaca.app.rehearsal.channel import Channel, launch_of
from galpaca.app.rehearsal.coordinator import Coordinator, RankProcess, follow
from galpaca.app.rehearsal.figures import Figures, read_figures, to_json
from galpaca.app.rehearsal.phases import Phases
from galpaca.app.rehearsal.plan import RehearsalPlan, check_name
from galpaca.app.train.disk_need import disk_shortage
from galpaca.errors import GalpacaError, InputError, Problems, StoppedBySignal
from galpaca.formatting import format_duration
from galpaca.runs.folder import RunFolder
from galpaca.runs.lock import locked
from galpaca.runs.shutdown import Shutdown


@dataclass(frozen=True)
class RehearseOptions:
    """Options of ``galpaca rehearse``.

    Attributes:
        overrides: overrides for ``train.py``.
        num_steps: how many of the longest steps of the plan to take.
        keep: keep the rehearsal's folder.
        limit_minutes: time limit of the rehearsal.
        as_json: print one line of JSON instead of a table.
    """

    overrides: Sequence[str]
    num_steps: int = 20
    keep: bool = False
    limit_minutes: float = 30.0
    as_json: bool = False


def rehearse(options: RehearseOptions) -> None:
    """Trains on the plan's longest steps, gets killed, resumes, exports and reloads; reports the cost of each.

    Call it on every rank, or in one process whose training launches the others. The real run folder is not touched.

    Raises:
        InputError: anything that training would reject.
        GalpacaError: the run does not fit, or a phase failed; the rehearsal's folder is kept.
        StoppedBySignal: a signal came; everything is cleaned up.
    """
    config, _ = compose(options.overrides)
    _check(config, options)
    plan = RehearsalPlan(config, options.overrides, options.num_steps)
    rank, shutdown = global_rank(), Shutdown.of_process()
    rank_process, channel = RankProcess(plan, rank), Channel(plan.root, launch_of(os.environ))
    with shutdown.deferring():  # so that its cleanup is not interrupted
        if rank == 0:
            _lead(plan, Coordinator(rank_process, num_launched(), channel, shutdown), shutdown, options)
        else:
            _end_as_told(follow(rank_process, channel, shutdown, 60 * options.limit_minutes))


def _check(config: Config, options: RehearseOptions) -> None:
    check_name(config)
    check_launch(config.trainer)
    with Problems() as problems:
        problems.check_number("--steps", options.num_steps, "at least 2", "--steps 20, the default")
        if not options.limit_minutes > 0:
            what = f"must be > 0, got {options.limit_minutes}"
            problems.add(what, where="--minutes", fix="--minutes 30, the default")
        if config.trainer.num_nodes > 1 and num_launched() == 1:
            problems.add(
                f"a run on {config.trainer.num_nodes} nodes must be rehearsed on all of them",
                where="trainer.num_nodes",
                fix="srun galpaca rehearse ..., with one task per GPU",
            )


def _lead(plan: RehearsalPlan, coordinator: Coordinator, shutdown: Shutdown, options: RehearseOptions) -> None:
    console = Console(stderr=options.as_json, highlight=False, soft_wrap=True)
    started = time.monotonic()

    def show(line: str) -> None:
        console.print(f"  {line}", markup=False)

    try:
        with _root(plan), _led_by_rank_0(coordinator):
            coordinator.gather()
            with _lock(plan), _home(plan, coordinator, keep=options.keep):
                console.print(f"rehearsing {plan.config.run.name} in {plan.home}", markup=False)
                results = Phases(plan, coordinator, shutdown, 60 * options.limit_minutes, show).run()
                figures, need = read_figures(plan, results)
        lack = disk_shortage(need, figures.free_bytes, plan.root.parent)
        _show(figures, console, options, "does not fit" if lack else "fits", time.monotonic() - started)
        if lack:
            raise GalpacaError(f"does not fit: {lack.what}", where=lack.where, why=lack.why, fix=lack.fix)
    except GalpacaError as error:
        if options.as_json:
            details = {"error": error.what, "where": error.where, "why": error.why, "fix": error.fix}
            print(json.dumps({"verdict": "does not fit", **details}))
        raise


def _show(figures: Figures, console: Console, options: RehearseOptions, verdict: str, seconds: float) -> None:
    if options.as_json:
        if verdict == "fits":
            print(json.dumps({"verdict": verdict, **to_json(figures)}))
        return
    show_rows(console, "rehearsed", [*figures.rows(), *short_run_rows(figures, seconds), ("verdict", verdict)])


def short_run_rows(figures: Figures, seconds: float) -> list[tuple[str, str]]:
    """A word where the run itself takes no longer than its rehearsal.

    Args:
        seconds: what the rehearsal took.
    """
    if figures.run_seconds.total > seconds:
        return []
    took, whole = format_duration(seconds), format_duration(figures.run_seconds.total)
    return [("note", f"this took {took}, and the whole run takes {whole}: such a run needs no rehearsal")]


@contextmanager
def _root(plan: RehearsalPlan) -> Iterator[None]:
    """Creates the parent folder of rehearsals; removes it again if it is empty."""
    made = [path for path in (plan.root, *plan.root.parents) if not path.exists()] or [plan.root]
    RunFolder(plan.root.parent, plan.root.name).create()
    try:
        yield
    finally:
        with suppress(OSError):  # another rehearsal, or one that failed; what was fetched or encoded for the run
            for path in made:
                path.rmdir()


@contextmanager
def _led_by_rank_0(coordinator: Coordinator) -> Iterator[None]:
    """Ends the other ranks with the exit code of rank 0."""
    code = GalpacaError.exit_code
    try:
        yield
        code = 0
    except (GalpacaError, StoppedBySignal) as error:
        code = error.exit_code
        raise
    finally:
        coordinator.end(code)


@contextmanager
def _lock(plan: RehearsalPlan) -> Iterator[None]:
    """Allows one rehearsal of a run at a time."""
    with locked(plan.lock):
        try:
            yield
        finally:
            plan.lock.unlink(missing_ok=True)


@contextmanager
def _home(plan: RehearsalPlan, coordinator: Coordinator, *, keep: bool) -> Iterator[None]:
    """The rehearsal's folder: created empty, and removed unless something failed."""
    if plan.folder.lock.exists():
        with locked(plan.folder.lock):  # a rehearsal that was killed may have left its run alive
            pass
    shutil.rmtree(plan.home, ignore_errors=True)
    plan.home.mkdir()
    try:
        yield
    except StoppedBySignal:
        raise
    except BaseException:
        keep = True
        raise
    finally:
        coordinator.kill()
        if not keep:
            shutil.rmtree(plan.home, ignore_errors=True)


def _end_as_told(code: int) -> None:
    """Ends with rank 0's exit code; rank 0 has reported why."""
    if code == StoppedBySignal.exit_code:
        raise StoppedBySignal("stopped with rank 0")
    if code:
        raise (InputError if code == InputError.exit_code else GalpacaError)("ended with rank 0")
