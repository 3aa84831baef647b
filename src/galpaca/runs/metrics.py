"""``metrics.jsonl``: one line for every optimizer step, and one for every validation."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from galpaca.errors import InputError
from galpaca.files.atomic import replace_file
from galpaca.files.checksums import FileFacts, file_facts
from galpaca.files.disks import naming
from galpaca.runs.lines import AnyLine, MetricsLine, StepLine, ValidationLine, parse_metrics_line, to_text


class MetricsFile:
    """Appends lines and syncs them to disk on request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, lines: Iterable[MetricsLine]) -> None:
        """Appends lines, visible to readers at once."""
        with naming(self.path):
            self._file.write("".join(to_text(line) + "\n" for line in lines))
            self._file.flush()

    def sync(self) -> None:
        """Syncs everything written so far to disk."""
        with naming(self.path):
            os.fsync(self._file.fileno())

    def facts(self) -> FileFacts:
        """Size and checksum of everything written so far, in this start and earlier ones."""
        return file_facts(self.path)

    def close(self) -> None:
        with naming(self.path):  # of what could not be written before
            self._file.close()


def append_lines(path: Path, lines: Iterable[AnyLine]) -> None:
    """Appends lines to a file and syncs it to disk."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write("".join(to_text(line) + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def read_metrics(path: Path) -> Iterator[MetricsLine]:
    """Lines of the file; a truncated last line, as in a run that is alive or was killed, is left out.

    Raises:
        InputError: a whole line that cannot be read: what is computed from the others would be wrong.
    """
    for number, text in enumerate(whole_lines(path), start=1):
        line = parse_metrics_line(text)
        if line is None:
            raise InputError(
                "the line is damaged: it is not a JSON object with a step and figures",
                where=f"{path}, line {number}",
                fix="restore the file from a copy, or delete that line; figures of its step are then missing",
            )
        yield line


def truncate_metrics(path: Path, last_step: int) -> None:
    """Removes all lines beyond ``last_step``, whose steps a resumed run takes again, and all that cannot be read."""
    if path.is_file():
        lines = [(text, parse_metrics_line(text)) for text in whole_lines(path)]
        kept = "".join(text for text, line in lines if line is not None and line.step <= last_step)
        if kept != path.read_text(encoding="utf-8", errors="replace"):
            before = path.stat()
            replace_file(path, kept)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # else the run would look as if it had a step


def whole_lines(path: Path) -> Iterator[str]:
    """The file's lines but for a truncated last one; none where there is no file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (text for text in file if text.endswith("\n"))


def validation_losses(path: Path) -> dict[int, float]:
    """Validation losses by step, if finite."""
    lines = (line for line in read_metrics(path) if isinstance(line, ValidationLine))
    return {line.step: line.val_loss for line in lines if line.val_loss is not None}


def training_losses(path: Path) -> list[float]:
    """Finite losses of all steps so far, in order."""
    return [line.loss for line in read_metrics(path) if isinstance(line, StepLine) and line.loss is not None]
