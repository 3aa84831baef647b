"""``metrics.jsonl``: one line for every optimizer step, and one for every validation."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from galpaca.runs.checksums import FileFacts, file_facts
from galpaca.runs.folder import replace_file


class MetricsFile:
    """Appends lines and syncs them to disk on request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Appends lines, visible to readers at once. NaN and infinity, which JSON lacks, become null."""
        self._file.write("".join(json.dumps(_finite(line)) + "\n" for line in lines))
        self._file.flush()

    def sync(self) -> None:
        """Syncs everything written so far to disk."""
        os.fsync(self._file.fileno())

    def facts(self) -> FileFacts:
        """Size and checksum of everything written so far, in this start and earlier ones."""
        return file_facts(self.path)

    def close(self) -> None:
        self._file.close()


def append_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Appends lines to a file and syncs it to disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(_finite(line), ensure_ascii=False) + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of the file; an incomplete last line, as in a live or killed run, is left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def cut_metrics(path: Path, last_step: int) -> None:
    """Removes all lines after ``last_step``, whose steps a resumed run takes again."""
    if path.is_file():
        whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        replace_file(path, "".join(line for line in whole if json.loads(line)["step"] <= last_step))


def validation_losses(path: Path) -> dict[int, float]:
    """Validation losses by step, if finite."""
    return {line["step"]: line["val_loss"] for line in read_metrics(path) if line.get("val_loss") is not None}


def training_losses(path: Path) -> list[float]:
    """Finite losses of all steps so far, in order."""
    return [line["loss"] for line in read_metrics(path) if line.get("loss") is not None]


def _finite(line: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
