"""Reports of a hanging run: where each rank is, its Python stack, and which rank is late."""

import faulthandler
import json
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# Where a process waits for others.
_WAITING = "/torch/distributed/"


@dataclass(frozen=True)
class StackReport:
    """Where a rank is.

    Attributes:
        rank, host, pid: which process.
        passed: how many places of the run it has passed; all ranks pass the same ones in the same order.
        place: the place in words.
        frame: innermost function of the main thread, with file and line.
        seconds: since the step at hand began.
    """

    rank: int
    host: str
    pid: int
    passed: int
    place: str
    frame: str
    seconds: float


def main_frame() -> str:
    """Where the main thread is now."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"


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
    """The reports written so far, by rank."""
    return [_read(path) for path in sorted(folder.glob("rank-*.txt"))]


def note_stopped(folder: Path, rank: int) -> None:
    """Records that a rank's process was stopped by a signal, for the verdict."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"rank-{rank:05d}.stopped").touch()


def verdict(reports: Sequence[StackReport], silent: Mapping[int, str], folder: Path) -> str:
    """One sentence that says which ranks are late.

    Args:
        reports: reports of the ranks that responded.
        silent: what is known about each of the others.
    """
    stopped = {int(path.stem.split("-")[1]) for path in folder.glob("rank-*.stopped")}
    findings = [f"rank {rank} was stopped (SIGSTOP)" for rank in sorted(stopped - silent.keys())]
    findings += [f"rank {rank} {what}" for rank, what in sorted(silent.items())]
    moving = [report for report in reports if report.rank not in stopped]
    late = _late(moving)
    ahead = next((report for report in moving if report not in late), None)
    findings += [
        f"rank {one.rank} on {one.host} (process {one.pid}) is late: at {one.place!r} in {one.frame}"
        + (f", others at {ahead.place!r} in {ahead.frame}" if ahead else "")
        for one in late
    ]
    if not findings and len(moving) > 1:
        where = f"{moving[0].place!r} in {moving[0].frame}"
        return f"no rank is late, all {len(moving)} wait at {where}: the network between them, or a disk?"
    return "; ".join(findings) or f"it is at {moving[0].place!r} in {moving[0].frame}"


def _late(moving: Sequence[StackReport]) -> list[StackReport]:
    """Ranks that have passed the fewest places; among equals, those not waiting in a collective."""
    fewest = min((report.passed for report in moving), default=0)
    if any(report.passed > fewest for report in moving):
        return [report for report in moving if report.passed == fewest]
    busy = [report for report in moving if _WAITING not in report.frame]
    return busy if len(busy) < len(moving) else []


def _read(path: Path) -> StackReport:
    with path.open(encoding="utf-8") as file:
        return StackReport(**json.loads(file.readline()))
