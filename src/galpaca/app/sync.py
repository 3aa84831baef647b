"""``galpaca sync``: sends to W&B what it lacks of run folders, also while the runs train."""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from galpaca.app.console import make_console
from galpaca.app.watch import RunSnapshot, Watcher
from galpaca.errors import GalpacaError, InputError, Problems, StoppedBySignal
from galpaca.runs.configuration import damaged, read_configuration
from galpaca.runs.folder import find_run
from galpaca.runs.found import with_runs_below
from galpaca.runs.metrics import read_metrics
from galpaca.runs.record import RunRecord
from galpaca.runs.shutdown import Shutdown, signal_of
from galpaca.tracking import service
from galpaca.tracking.follower import Follower
from galpaca.tracking.rows import METRICS, SAMPLES, SYSTEM, Rows
from galpaca.tracking.sender import Ending, Sender, noted
from galpaca.tracking.service import Run
from galpaca.training.loggers import wandb

_POLL_SECONDS = 1.0
# To upload the lines of weeks.
_FINISH_SECONDS = 600.0
# Before each time of the server's checks; it counts what it was sent a little later.
_PAUSES_SECONDS = (0.0, 1.0, 5.0)


def sync(runs: Sequence[Path], *, dry_run: bool = False, follow: bool = False, wait: bool = False) -> None:
    """Sends what is not at W&B yet; a run that fails does not stop the others.

    Args:
        runs: run folders.
        dry_run: only list it, which needs no network and no key.
        follow: continue until the runs have ended.
        wait: and until they are complete: one that was stopped or killed will be resumed.

    Raises:
        InputError: not a run folder, not logged to W&B, damaged, or no API key.
        GalpacaError: no network; or, at the end, the runs that are not completely uploaded.
        StoppedBySignal: Ctrl-C ended following; what was written until then is uploaded.
    """
    console = make_console()
    found = _find(runs)
    waiting = [run for run in found if _show(console, run) or follow]
    if dry_run or not waiting:
        return
    _check_ready()
    failed = Problems()
    try:
        if follow:
            _follow(console, waiting, failed, wait=wait)
        for run in [] if follow else waiting:
            _attempt(failed, run, partial(_upload, console, run))
    finally:
        service.shut_down()
    if error := failed.error():
        raise GalpacaError(str(error))  # no mistake of a user


def _find(runs: Sequence[Path]) -> list[Run]:
    with Problems() as problems:
        found = [problems.collect(partial(_run, path)) for path in with_runs_below(runs)]
    return [run for run in found if run is not None]


def _run(path: Path) -> Run:
    """The run and what it is called at W&B, by its configuration."""
    folder = find_run(path, recorded=True)
    config = read_configuration(folder.config)
    logger = config.get("logger")
    logger = dict(logger) if isinstance(logger, dict) else {}
    if logger.pop("_target_", None) != f"{wandb.__module__}.{wandb.__qualname__}":
        fix = "train with logger=wandb; metrics.jsonl has all metrics"
        raise InputError("the run is not logged to W&B", where=path, fix=fix)
    try:
        logger["tags"] = tuple(logger.get("tags") or ())
        run = Run(folder, RunRecord(folder.record).content.id, **logger, finish_seconds=_FINISH_SECONDS)
    except TypeError as error:  # other keys than the logger's, or a tag that is no list
        raise damaged(folder.config, f"logger: {error}") from None
    deque(read_metrics(folder.metrics), maxlen=0)  # a damaged line, without which steps would be missing silently
    return run


def _show(console: Console, run: Run) -> bool:
    """Shows what W&B has of a run, as far as it is known here.

    Returns:
        Whether anything may be missing.
    """
    known, is_verified = noted(run.folder)
    rows = list(Rows(run.folder).new(ended=True))
    lines = [row for row in rows if row.stream == METRICS]
    there = [row.step for row in lines if row.number <= known[METRICS]]
    lacking = Counter(row.stream for row in rows if row.number > known[row.stream])
    at = f"up to step {max(there):,}{'' if is_verified else ' (not verified)'}" if there else "none known"
    names = {METRICS: "lines", SAMPLES: "tables of samples", SYSTEM: "figures of the machine"}
    missing = [f"{lacking[stream]:,} {name}" for stream, name in names.items() if lacking[stream]]
    console.print(str(run.folder.path), style="bold", markup=False)
    console.print(f"  {len(lines):,} lines; at W&B: {at}; missing: {', '.join(missing) or 'nothing'}")
    return bool(lacking) or not is_verified


def _check_ready() -> None:
    """Checks that W&B has a key and can be reached.

    Raises:
        InputError: no API key.
        GalpacaError: no network.
    """
    os.environ["WANDB_MODE"] = "online"  # the command is a request to upload
    if not service.has_key():
        raise InputError("no W&B API key", where="WANDB_API_KEY", fix="wandb login, or WANDB_API_KEY=...")
    if not service.is_reachable():
        raise GalpacaError(
            "the W&B server does not respond",
            where=service.server(),
            fix="rerun the command with network access, e.g. on a login node; nothing is lost",
        )


def _attempt(failed: Problems, run: Run, act: Callable[[], None]) -> bool:
    """Whether it worked; what did not is reported with the problems of other runs, at the end."""
    try:
        act()
    except GalpacaError as error:
        failed.add(error.what, where=run.folder.path, why=error.why, fix=error.fix)
    except Exception as error:  # W&B raises many kinds
        why = " ".join(str(error).split()) or type(error).__name__
        failed.add("cannot send the run to W&B", where=run.folder.path, why=why, fix="run galpaca sync again")
    else:
        return True
    return False


def _upload(console: Console, run: Run) -> None:
    """Sends what W&B lacks until the server says that it lacks nothing: W&B reports uploads that it gave up as done."""
    ending = _ending(Watcher(run.folder).poll())
    for seconds in _PAUSES_SECONDS:
        time.sleep(seconds)
        sender = Sender(run)
        sender.finish(ending)
        if sender.is_verified:
            console.print(f"[green]{run.folder.path} is uploaded to W&B[/green]")
            return
    fix = "run galpaca sync again; it sends what is missing"
    raise GalpacaError("the run is not completely uploaded to W&B", fix=fix)


def _follow(console: Console, runs: Sequence[Run], failed: Problems, *, wait: bool) -> None:
    """Sends runs as they grow. The first Ctrl-C ends the sessions at W&B, a second one the process."""
    shutdown = Shutdown()
    shutdown.deferred = True
    with shutdown.listening():
        followers = [Follower(run, partial(console.print, markup=False)) for run in runs]
        # What is wrong at the start is no matter of the network, and will stay wrong.
        followed = {
            one: Watcher(one.run.folder, wait=wait) for one in followers if _attempt(failed, one.run, one.advance)
        }
        for one in followed:
            console.print(f"following {one.run.folder.path}; Ctrl-C stops following, not the run", markup=False)
        while followed and not shutdown.urgency:
            time.sleep(_POLL_SECONDS)
            for one, watcher in list(followed.items()):
                snapshot = watcher.poll()
                if one.step(_ending(snapshot) if snapshot.is_over else None):
                    del followed[one]
                    _attempt(failed, one.run, partial(_upload, console, one.run))
        for one, watcher in followed.items():
            if one.sender is not None:
                one.step(_ending(watcher.poll()))
    if followed:
        raise StoppedBySignal("following stopped; galpaca sync sends the rest", signal_of(shutdown.urgency))


def _ending(snapshot: RunSnapshot) -> Ending:
    state = snapshot.state
    comes_back = state.kind not in ("complete", "failed")
    return Ending(int(state.kind != "complete"), comes_back=comes_back, is_alive=state.is_alive)
