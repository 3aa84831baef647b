"""``galpaca watch``: follows a run through its files, from another terminal or machine."""

import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from galpaca.app.console import make_console
from galpaca.errors import GalpacaError, InputError
from galpaca.formatting import format_bytes, format_duration, format_or
from galpaca.runs.folder import RunFolder, find_run
from galpaca.runs.history import History, Tail
from galpaca.runs.lines import StepLine
from galpaca.runs.record import read_content
from galpaca.runs.record_fields import RunContent
from galpaca.runs.state import RunState, run_state

_COLOURS = {"complete": "green", "running": "cyan", "starting": "cyan", "failed": "red", "killed": "red"}
_LINE_EVERY_SECONDS = 15.0
_BARS = "▁▂▃▄▅▆▇█"
_IN_A_LINE = ("loss", "validation loss", "tokens/s", "last line", "left")
# Recent steps that the remaining time is estimated from.
_RECENT = 100


@dataclass(frozen=True)
class RunSnapshot:
    """The state of a run at one moment.

    Attributes:
        record: content of ``run.json``.
        goes_on: no process is writing now, but the job will be restarted.
    """

    folder: RunFolder
    record: RunContent
    history: History
    state: RunState
    goes_on: bool

    @property
    def num_steps(self) -> int | None:
        return self.record.num_steps

    @property
    def left_seconds(self) -> float | None:
        """Estimated time left at the pace of recent steps, without validations and checkpoints."""
        recent = [line.step_seconds for line in self.history.steps[-_RECENT:] if line.step_seconds]
        if not recent or self.num_steps is None or self.state.kind not in ("running", "stalled"):
            return None
        return (self.num_steps - self.history.last_step) * statistics.fmean(recent)

    @property
    def is_over(self) -> bool:
        return not self.state.is_alive and not self.goes_on


class Watcher:
    """Polls a run, reading only new lines each time.

    Args:
        wait: keep waiting for a run that stopped or was killed to be restarted.
    """

    def __init__(self, folder: RunFolder, *, wait: bool = False) -> None:
        self.folder, self.wait = folder, wait
        self._tail = Tail(folder.metrics)

    def poll(self) -> RunSnapshot:
        record = read_content(self.folder.record) or RunContent()
        history = self._tail.read()
        state = run_state(self.folder, record, history)
        return RunSnapshot(self.folder, record, history, state, self._goes_on(record, state))

    def _goes_on(self, record: RunContent, state: RunState) -> bool:
        if state.kind == "complete":
            return False
        is_job = record.last_start.slurm_job is not None
        return self.wait or (is_job and state.kind in ("stopped", "killed"))


def watch(run: Path, *, once: bool, wait: bool, every_seconds: float) -> None:
    """Follows a run until it ends.

    Args:
        run: run folder.
        once: show the current state and return.
        wait: wait for a run that has not started, or that has not been restarted yet.
        every_seconds: polling interval.

    Raises:
        InputError: not a run folder.
        GalpacaError: the run ended before it was complete.
    """
    console = make_console()
    watcher = Watcher(_find(run, console, wait and not once, every_seconds), wait=wait)
    snapshot = watcher.poll()
    if once:
        console.print(panel(snapshot) if console.is_terminal else summary_line(snapshot), markup=False)
        return
    snapshot = _follow(console, watcher, snapshot, every_seconds)
    if snapshot.state.kind != "complete":
        raise GalpacaError(
            f"the run {_ENDED[snapshot.state.kind]} before it was complete",
            where=snapshot.folder.path,
            why=snapshot.state.detail,
            fix="rerun the training command to resume from its last checkpoint",
        )


_ENDED = {"stopped": "was stopped", "failed": "failed", "killed": "was killed"}


def _find(run: Path, console: Console, wait: bool, every_seconds: float) -> RunFolder:
    while True:
        try:
            return find_run(run)
        except InputError:
            if not wait:
                raise
            console.print(f"waiting for {run}")
            while not (run / "run.json").is_file():
                time.sleep(every_seconds)


def _follow(console: Console, watcher: Watcher, snapshot: RunSnapshot, every_seconds: float) -> RunSnapshot:
    lines = Lines(console)
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with live or nullcontext():
        while True:
            if live:
                live.update(panel(snapshot), refresh=True)
            else:
                lines.show(snapshot)
            if snapshot.is_over:
                return snapshot
            time.sleep(every_seconds)
            snapshot = watcher.poll()


class Lines:
    """For a log file: prints a line when the state changes, and occasionally in between."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._last: tuple[str, float] = ("", 0.0)

    def show(self, snapshot: RunSnapshot) -> None:
        kind, now = snapshot.state.kind, time.monotonic()
        if kind != self._last[0] or (snapshot.state.is_alive and now - self._last[1] >= _LINE_EVERY_SECONDS):
            self._last = (kind, now)
            self.console.print(summary_line(snapshot), markup=False)


def summary_line(snapshot: RunSnapshot) -> str:
    """The run in one line."""
    parts = [f"{snapshot.state.kind} ({snapshot.state.detail})", _progress(snapshot)]
    parts += [f"{label} {value}" for label, value in figures(snapshot) if label in _IN_A_LINE]
    if snapshot.goes_on and not snapshot.state.is_alive:
        parts.append("waiting for it to resume")
    return f"{snapshot.folder.name}: " + ", ".join(parts)


def figures(snapshot: RunSnapshot) -> list[tuple[str, str]]:
    """Label and value of the latest metrics."""
    history = snapshot.history
    last = history.steps[-1] if history.steps else StepLine(step=0)
    known = [line.val_loss for line in history.validations if line.val_loss is not None]
    left, silent = snapshot.left_seconds, snapshot.state.silent_seconds
    shown = [
        ("loss", format_or(last.loss, ".4f", "")),
        ("validation loss", f"{known[-1]:.4f} (best {min(known):.4f})" if known else ""),
        ("learning rate", format_or(last.lr, ".3g", "")),
        ("gradient norm", format_or(last.grad_norm, ".3f", "")),
        ("tokens/s", format_or(last.tokens_per_second, ",.0f", "")),
        ("MFU", format_or(last.mfu, ".1%", "")),
        ("peak memory", format_bytes(last.peak_memory_bytes) if last.peak_memory_bytes else ""),
        ("skipped steps", format_or(sum(bool(line.skipped) for line in history.steps) or None, ",d", "")),
        ("last line", f"{format_duration(silent)} ago" if silent is not None else ""),
        ("left", format_duration(left) if left is not None else ""),
    ]
    return [(label, value) for label, value in shown if value]


def panel(snapshot: RunSnapshot, width: int = 48) -> Panel:
    """The run as a panel for a terminal."""
    state = snapshot.state
    head = Text.assemble((state.kind, f"bold {_COLOURS.get(state.kind, 'yellow')}"), f"  {state.detail}")
    if snapshot.goes_on and not state.is_alive:
        head.append("\nwaiting for it to resume; Ctrl-C stops watching, not the run", "dim")
    done = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=snapshot.num_steps or 1, completed=snapshot.history.last_step, width=width)
    done.add_row(bar, _progress(snapshot))
    table = Table.grid(padding=(0, 2))
    for label, value in figures(snapshot):
        table.add_row(Text(label, "cyan"), value)
    losses = [line.loss for line in snapshot.history.steps if line.loss is not None]
    curve = Text.assemble(("loss  ", "cyan"), sparkline(losses, width))
    content = Group(head, "", done, curve, "", table)
    return Panel(content, title=str(snapshot.folder.path), title_align="left", expand=False)


def sparkline(values: Sequence[float], width: int) -> str:
    """Means over equal intervals, as bars scaled to the largest."""
    if not values:
        return ""
    count = min(width, len(values))
    means = [statistics.fmean(values[i * len(values) // count : (i + 1) * len(values) // count]) for i in range(count)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def _progress(snapshot: RunSnapshot) -> str:
    if snapshot.num_steps is None:
        return f"step {snapshot.history.last_step:,}"
    share = snapshot.history.last_step / snapshot.num_steps
    return f"step {snapshot.history.last_step:,} of {snapshot.num_steps:,} ({share:.0%})"
