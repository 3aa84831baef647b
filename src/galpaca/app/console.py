"""Console output."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from galpaca.formatting import format_or
from galpaca.runs.lines import MetricsLine, StepLine, ValidationLine

# In a log file, an occasional line replaces the progress bar.
_LOG_EVERY_SECONDS = 15.0


def make_console(*, quiet: bool = False, stderr: bool = False) -> Console:
    return Console(quiet=quiet, stderr=stderr, highlight=False, soft_wrap=True)


def show_rows(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Prints a title and labelled values below it."""
    width = max((len(label) for label, _ in rows), default=0)
    console.print(title, style="bold", markup=False)
    for label, value in rows:  # no table: it would truncate or fold a path, which then leads nowhere
        console.print(Text.assemble((f"  {label:<{width}}", "cyan"), f"  {value}"))


def between_words(console: Console, text: str) -> str:
    """The text with lines that end between words in a terminal, and as it is elsewhere.

    A row of a table continues below its last column. No character is left out, and a word longer than a line, such as a
    sequence, stays whole.
    """
    if not console.is_terminal:
        return text
    return "\n".join(_wrapped(line, max(20, console.width - 1)) for line in text.split("\n"))


def _wrapped(line: str, width: int) -> str:
    row = re.match(r" {2,}\S+(?: \S+)* {2,}", line)
    indent = " " * (row.end() if row else 0)
    lines: list[str] = []
    while len(line) > width:
        start = len(indent) if lines else len(line) - len(line.lstrip(" "))
        cut = line.rfind(" ", start, width + 1)
        cut = cut if cut > start else line.find(" ", width)
        if cut < 0:
            break
        lines.append(line[: cut + 1])
        line = indent + line[cut + 1 :]
    return "\n".join([*lines, line])


# Steps may take minutes: with rich's own 30 seconds there would be no speed, and no time left.
_SPEED_SECONDS = 3600.0


@contextmanager
def counting(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar; yields a function that sets how many items are done."""
    with Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        speed_estimate_period=_SPEED_SECONDS,
    ) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


class TrainingProgress:
    """Shows training progress: a bar in a terminal, an occasional line in a log file. A ``Sink`` of metrics."""

    def __init__(self, console: Console, num_steps: int, first_step: int) -> None:
        self.console, self.num_steps = console, num_steps
        self._last_logged = 0.0
        self._val_loss: float | None = None
        self._bar = Progress(
            TextColumn("[bold]training[/bold]"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=_SPEED_SECONDS,
        )
        self._task = self._bar.add_task("training", total=num_steps, completed=first_step, figures="")

    def __enter__(self) -> "TrainingProgress":
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def write(self, lines: Sequence[MetricsLine]) -> None:
        for line in lines:
            if isinstance(line, ValidationLine):
                self._val_loss = line.val_loss
                parts = [f"{name.removeprefix('val_loss/')} {value:.4f}" for name, value in line.extra.items()]
                of_sources = f" ({', '.join(parts)})" if parts else ""
                loss = format_or(line.val_loss, ".4f", "none")
                self._log(f"step {line.step}: validation loss {loss}{of_sources}")
            elif isinstance(line, StepLine):
                self._show(line)

    def _show(self, line: StepLine) -> None:
        figures = f"loss {format_or(line.loss, '.4f', 'none')}  {line.tokens_per_second or 0:,.0f} tokens/s"
        if self._val_loss is not None:
            figures += f"  val {self._val_loss:.4f}"
        self._bar.update(self._task, completed=line.step, figures=figures)
        now = time.monotonic()
        if now - self._last_logged >= _LOG_EVERY_SECONDS or line.step == self.num_steps:
            self._last_logged = now
            left = self._bar.tasks[0].time_remaining
            suffix = f"  {left / 60:.0f} min left" if left else ""
            norm = format_or(line.grad_norm, ".3f", "overflow")
            self._log(f"step {line.step}/{self.num_steps}: {figures}  grad norm {norm}{suffix}")

    def _log(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text)
