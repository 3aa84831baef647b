"""The state of a run, from its files alone: also from another terminal or machine."""

import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from galpaca.runs.folder import RunFolder
from galpaca.runs.history import History
from galpaca.runs.lock import read_holder
from galpaca.runs.record_fields import RunContent

Kind = Literal["starting", "running", "stalled", "complete", "stopped", "failed", "killed"]

# Without a new line for longer than all of these, a run is called stalled: validations, checkpoints and the first
# step's compilation take time too.
_PATIENCE_SECONDS, _PATIENCE_STEPS = 300.0, 60
_PATIENCE_AT_START_SECONDS = 1800.0


@dataclass(frozen=True)
class RunState:
    """The state of a run.

    Attributes:
        kind: the state in one word.
        detail: a short explanation.
        silent_seconds: time since the run last wrote a line, or started; None if it is not running.
    """

    kind: Kind
    detail: str
    silent_seconds: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the run is alive, as far as its files show."""
        return self.kind in ("starting", "running", "stalled")


def run_state(folder: RunFolder, record: RunContent, history: History, now: float | None = None) -> RunState:
    """The current state of a run.

    Args:
        record: the content of its ``run.json``.
        now: seconds since 1970; by default this machine's.
    """
    holder = read_holder(folder.lock)
    is_over = record.last_end.how == "complete"  # all that is left to do is its report
    if holder is None or (is_over and _is_released(folder, record)):
        return _ended(folder, record, history)
    alive = holder.is_alive()
    if alive is False:
        return RunState("killed", f"{holder} ended without recording why, {_saved(folder, history)}")
    now = time.time() if now is None else now
    last_line: float | None = None
    with suppress(OSError):  # there is none yet
        last_line = folder.metrics.stat().st_mtime
    is_starting = last_line is None or last_line < holder.since
    silent = max(0.0, now - (holder.since if is_starting or last_line is None else last_line))
    if silent > (_PATIENCE_AT_START_SECONDS if is_starting else _patience(history)):
        lost = "" if alive else ", or the process is gone"
        return RunState("stalled", f"{holder} has stopped writing: it hangs{lost}", silent)
    if is_starting:
        return RunState("starting", f"{holder}, before its first step", silent)
    return RunState("running", str(holder), silent)


def _ended(folder: RunFolder, record: RunContent, history: History) -> RunState:
    if _is_released(folder, record) and history.last_step == record.last_step:
        return RunState("complete", "its model is released")
    ended = record.last_end
    if ended.how == "failed":
        return RunState("failed", f"{ended.why}; {_saved(folder, history)}")
    # A run that was stopped says itself up to where it is saved.
    return RunState("stopped", ended.why or f"no process is writing; {_saved(folder, history)}")


def _is_released(folder: RunFolder, record: RunContent) -> bool:
    return not record.unreleased and folder.has_all((record.release and record.release.folders) or ("model",))


def _saved(folder: RunFolder, history: History) -> str:
    saved = folder.last_saved_step()
    return f"after step {history.last_step:,}, " + (f"saved up to step {saved:,}" if saved else "nothing is saved")


def _patience(history: History) -> float:
    recent = [line.step_seconds for line in history.steps[-50:] if line.step_seconds]
    return max(_PATIENCE_SECONDS, _PATIENCE_STEPS * statistics.median(recent) if recent else 0.0)
