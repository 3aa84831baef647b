"""What W&B has written into a run folder: one transaction log for each start, read by W&B's own program.

A log is written in blocks of 32 KiB. When W&B's process is killed, the rows of the last block are not in it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galpaca.errors import GalpacaError
from galpaca.files.atomic import replace_file
from galpaca.training.tracking.rows import LINE, STEP, is_line

_READ_SECONDS = 300.0
# Records that tell something here; the others are most of a log.
_TOLD = ('"type":"run"', '"type":"history"', '"type":"exit"')
# Where W&B itself notes that a log was uploaded.
_SYNCED = ".synced"
_UP_TO = "wandb/uploaded_up_to"


@dataclass(frozen=True)
class Segment:
    """One start's log.

    Attributes:
        file: ``run-<id>.wandb``.
        offline: nothing was uploaded while it was written.
        entity, project: where it is uploaded; empty if not given.
        started: when, as W&B writes it; empty in a log without a run.
        rows: rows of history, in order.
        ended: whether it was closed cleanly.
    """

    file: Path
    offline: bool
    entity: str
    project: str
    started: str
    rows: list[dict[str, Any]]
    ended: bool

    @property
    def bytes(self) -> int:
        return self.file.stat().st_size

    @property
    def steps(self) -> list[int]:
        """Of all rows that have one, in order."""
        return [int(row[STEP]) for row in self.rows if STEP in row]

    @property
    def lines(self) -> list[int]:
        """Numbers of the lines of ``metrics.jsonl`` that are in it."""
        return [int(row[LINE]) for row in self.rows if LINE in row and is_line(row[LINE])]

    @property
    def uploaded(self) -> bool:
        """Whether it was marked as such."""
        return _marker(self.file).exists()

    def mark_uploaded(self, uploaded: bool = True) -> None:
        """Notes it where W&B does, which calls uploads that have failed done, too."""
        mark_uploaded(self.file, uploaded)


def mark_uploaded(file: Path, uploaded: bool = True) -> None:
    """As ``Segment.mark_uploaded``, of a log that nobody has read: that of a long run takes minutes."""
    if uploaded:
        _marker(file).touch()
    else:
        _marker(file).unlink(missing_ok=True)


def uploaded_up_to(run: Path) -> int:
    """Number of the last line that W&B is known to have, whatever is in its logs; -1 for none."""
    file = run / _UP_TO
    return int(file.read_text(encoding="ascii")) if file.is_file() else -1


def note_uploaded(run: Path, up_to: int) -> None:
    replace_file(run / _UP_TO, f"{up_to}\n")


def find_segments(run: Path, run_id: str) -> list[Segment]:
    """All logs in a run folder, oldest first.

    Raises:
        GalpacaError: W&B's reader is not there, or takes too long.
    """
    # Not ``latest-run``, which leads to one of the others.
    files = [file for file in run.glob(f"wandb/*run-*/run-{run_id}.wandb") if not file.parent.is_symlink()]
    # Two of one second are told apart by the time within.
    return sorted(map(read_segment, files), key=lambda one: (one.started or "9", one.file.parent.name))


def read_segment(file: Path) -> Segment:
    """Reads a log up to where it is whole.

    Raises:
        GalpacaError: as ``find_segments``.
    """
    begun: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    ended = False
    for record in _records(file):
        if record["type"] == "run" and not begun:
            begun = record["run"]
        elif record["type"] == "history":
            rows.append(record["history"]["item"])
        ended = ended or record["type"] == "exit"
    offline = file.parent.name.startswith("offline-")
    started = str(begun.get("start_time", ""))
    return Segment(file, offline, begun.get("entity", ""), begun.get("project", ""), started, rows, ended)


def _records(file: Path) -> Iterator[dict[str, Any]]:
    from wandb.util import get_core_path

    line = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", str(file)]
    try:
        done = subprocess.run(
            [*line, str(file.parent)], capture_output=True, text=True, timeout=_READ_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GalpacaError(
            "W&B's reader cannot read its own log", where=file, why=str(error), fix="pip install -U 'wandb>=0.31'"
        ) from None
    # A log that is damaged from its first byte on has no lines.
    for text in done.stdout.splitlines():
        if any(told in text for told in _TOLD):
            yield json.loads(text)


def _marker(file: Path) -> Path:
    return file.with_name(file.name + _SYNCED)
