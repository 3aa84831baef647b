"""What ranks of a run that stands still tell: where each is, with its Python stack, and which of them is late."""

from __future__ import annotations

import faulthandler
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class StackReport:
    """Where a rank is.

    Attributes:
        rank, host, pid: which process.
        passed: how many places of the run it has passed; all ranks pass the same ones in the same order.
        place: in words.
        seconds: since the step at hand began.
    """

    rank: int
    host: str
    pid: int
    passed: int
    place: str
    seconds: float


def write_report(folder: Path, report: StackReport) -> None:
    """Writes ``rank-NNNNN.txt``: the report in the first line, then the stacks of all the process's threads."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rank-{report.rank:05d}.txt"
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        print(json.dumps(asdict(report)), file=file, flush=True)
        faulthandler.dump_traceback(file, all_threads=True)
    partial.replace(path)


def read_reports(folder: Path) -> list[StackReport]:
    """Those that are there, by rank."""
    return [_read(path) for path in sorted(folder.glob("rank-*.txt"))]


def note_stopped(folder: Path, rank: int) -> None:
    """Leaves word that a rank's process was stopped by a signal, for whoever tells the verdict."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"rank-{rank:05d}.stopped").touch()


def verdict(reports: Sequence[StackReport], silent: Mapping[int, str], folder: Path) -> str:
    """Which ranks are late, in a sentence.

    Args:
        reports: of the ranks that have told where they are.
        silent: what is known of each of the others.
    """
    stopped = {int(path.stem.split("-")[1]) for path in folder.glob("rank-*.stopped")}
    told = [f"rank {rank} was stopped (SIGSTOP)" for rank in sorted(stopped - silent.keys())]
    told += [f"rank {rank} {what}" for rank, what in sorted(silent.items())]
    moving = [report for report in reports if report.rank not in stopped]
    fewest, most = (pick((report.passed for report in moving), default=0) for pick in (min, max))
    if fewest < most:
        ahead = next(report.place for report in moving if report.passed == most)
        told += [
            f"rank {late.rank} on {late.host} (process {late.pid}) is late: at {late.place!r}, others at {ahead!r}"
            for late in moving
            if late.passed == fewest
        ]
    if not told and len(moving) > 1:
        return f"no rank is late, all {len(moving)} wait at {moving[0].place!r}: the network between them, or a disk?"
    return "; ".join(told) or f"it is at {moving[0].place!r}"


def _read(path: Path) -> StackReport:
    with path.open(encoding="utf-8") as file:
        return StackReport(**json.loads(file.readline()))
