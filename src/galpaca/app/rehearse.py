"""``galpaca rehearse``: the real run from start to release, on its own machine, in minutes instead of hours."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console

from galpaca.app.composition import compose
from galpaca.app.config import Config
from galpaca.app.console import show_rows
from galpaca.app.launch import check_launch
from galpaca.app.ranks import global_rank, num_launched
from galpaca.app.rehearsal.channel import Channel, launch_of
from galpaca.app.rehearsal.crew import Crew, Hand, follow
from galpaca.app.rehearsal.figures import Figures, read_figures, to_json
from galpaca.app.rehearsal.interrupts import Interrupts
from galpaca.app.rehearsal.life import Life
from galpaca.app.rehearsal.script import Script, check_name
from galpaca.app.room import disk_lack
from galpaca.errors import GalpacaError, InputError, Problems, StoppedBySignal
from galpaca.runs.folder import RunFolder
from galpaca.runs.lock import locked


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

    overrides: tuple[str, ...]
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
    script = Script(config, options.overrides, options.num_steps)
    rank, interrupts = global_rank(), Interrupts()
    hand, channel = Hand(script, rank), Channel(script.place, launch_of(os.environ))
    with interrupts.listening():
        if rank == 0:
            _lead(script, Crew(hand, num_launched(), channel, interrupts), interrupts, options)
        else:
            _end_as_told(follow(hand, channel, interrupts, 60 * options.limit_minutes))


def _check(config: Config, options: RehearseOptions) -> None:
    check_name(config)
    check_launch(config.trainer)
    problems = Problems()
    if options.num_steps < 2:
        problems.add(f"must be at least 2, got {options.num_steps}", where="--steps", fix="--steps 20, the default")
    if not options.limit_minutes > 0:
        problems.add(f"must be > 0, got {options.limit_minutes}", where="--minutes", fix="--minutes 30, the default")
    if config.trainer.num_nodes > 1 and num_launched() == 1:
        problems.add(
            f"a run on {config.trainer.num_nodes} nodes must be rehearsed on all of them",
            where="trainer.num_nodes",
            fix="srun galpaca rehearse ..., with one task per GPU",
        )
    problems.raise_any()


def _lead(script: Script, crew: Crew, interrupts: Interrupts, options: RehearseOptions) -> None:
    console = Console(stderr=options.as_json, highlight=False, soft_wrap=True)

    def tell(line: str) -> None:
        console.print(f"  {line}", markup=False)

    try:
        with _place(script), _led(crew):
            crew.gather()
            with _lock(script), _home(script, crew, keep=options.keep):
                console.print(f"rehearsing {script.config.run.name} in {script.home}", markup=False)
                lived = Life(script, crew, interrupts, 60 * options.limit_minutes, tell).live()
                figures, need = read_figures(script, lived)
        lack = disk_lack(need, figures.free_bytes, script.place.parent)
        _show(figures, console, options, "does not fit" if lack else "fits")
        if lack:
            raise GalpacaError(f"does not fit: {lack.what}", where=lack.where, why=lack.why, fix=lack.fix)
    except GalpacaError as error:
        if options.as_json:
            told = {"error": error.what, "where": error.where, "why": error.why, "fix": error.fix}
            print(json.dumps({"verdict": "does not fit", **told}))
        raise


def _show(figures: Figures, console: Console, options: RehearseOptions, verdict: str) -> None:
    if options.as_json:
        if verdict == "fits":
            print(json.dumps({"verdict": verdict, **to_json(figures)}))
        return
    show_rows(console, "rehearsed", [*figures.rows(), ("verdict", verdict)])


@contextmanager
def _place(script: Script) -> Iterator[None]:
    """Creates the parent folder of rehearsals; removes it again if it is empty."""
    made = [path for path in (script.place, *script.place.parents) if not path.exists()] or [script.place]
    RunFolder(script.place.parent, script.place.name).create()
    try:
        yield
    finally:
        with suppress(OSError):  # another rehearsal, or one that failed; what was fetched or encoded for the run
            for path in made:
                path.rmdir()


@contextmanager
def _led(crew: Crew) -> Iterator[None]:
    """Ends the other ranks with the exit code of rank 0."""
    code = GalpacaError.exit_code
    try:
        yield
        code = 0
    except (GalpacaError, StoppedBySignal) as error:
        code = error.exit_code
        raise
    finally:
        crew.end(code)


@contextmanager
def _lock(script: Script) -> Iterator[None]:
    """Allows one rehearsal of a run at a time."""
    with locked(script.lock):
        try:
            yield
        finally:
            script.lock.unlink(missing_ok=True)


@contextmanager
def _home(script: Script, crew: Crew, *, keep: bool) -> Iterator[None]:
    """The rehearsal's folder: created empty, and removed unless something failed."""
    if script.folder.lock.exists():
        with locked(script.folder.lock):  # a rehearsal that was killed may have left its run alive
            pass
    shutil.rmtree(script.home, ignore_errors=True)
    script.home.mkdir()
    try:
        yield
    except StoppedBySignal:
        raise
    except BaseException:
        keep = True
        raise
    finally:
        crew.kill()
        if not keep:
            shutil.rmtree(script.home, ignore_errors=True)


def _end_as_told(code: int) -> None:
    """Ends with rank 0's exit code; rank 0 has reported why."""
    if code == StoppedBySignal.exit_code:
        raise StoppedBySignal("stopped with rank 0")
    if code:
        raise (InputError if code == InputError.exit_code else GalpacaError)("ended with rank 0")
