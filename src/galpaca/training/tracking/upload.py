"""What could not be sent while a run ran: logs of offline starts by W&B's own command, lines that are in no log from
``metrics.jsonl``.

The server tells which line it has last. It takes a log as a continuation of what it has, so logs go in order, and one
whose first lines it has already (it was cut off while it was sent, or lines that were lost here had arrived there) is
not sent again; its missing lines are.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from galpaca.errors import GalpacaError
from galpaca.runs.lines import MetricsLine
from galpaca.training.tracking import service
from galpaca.training.tracking.rows import LINE, Sent, named, row
from galpaca.training.tracking.segments import Segment, find_segments, note_uploaded

Lines = Sequence[MetricsLine]

# A log of a day is a few megabytes; a server that has not answered by then hangs.
_LEAST_SECONDS = 120.0
_BYTES_PER_SECOND = 50_000
# The server counts what it was sent some seconds later.
_ASK_AGAIN_SECONDS = (0.0, 2.0, 8.0)


def upload(run: service.Run, segments: Sequence[Segment], lines: Lines) -> None:
    """Sends what the server lacks, and marks logs that it has.

    Args:
        segments: all of the run, oldest first.
        lines: lines of ``metrics.jsonl``.

    Raises:
        GalpacaError: not all of it arrived.
    """
    offline = [one for one in segments if one.offline and not one.uploaded and one.started]
    up_to = -1
    if offline and any(not one.offline or _was_tried(one) for one in segments):
        up_to = _send_lines(run, [line for line in lines if number_of(line) < min(offline[0].lines, default=0)])
    synced, told = None, ""
    for segment in offline:
        if not segment.lines or min(segment.lines) > up_to:
            told = _sync(segment.file)
            segment.mark_uploaded(False)  # it is not known yet
            synced = up_to = max([up_to, *segment.lines])
    up_to = _send_lines(run, lines, synced=synced, told=told)
    for segment in find_segments(run.folder, run.id):  # with those of the uploads
        if max(segment.lines, default=-1) <= up_to:
            segment.mark_uploaded()
    note_uploaded(run.folder, up_to)


def number_of(line: MetricsLine) -> int:
    """Of a line of ``metrics.jsonl``."""
    return int(row(named(line), line.step).get(LINE, -1))


def _was_tried(segment: Segment) -> bool:
    """W&B notes what it took for the log's first step, before it sends any."""
    return segment.file.with_name(segment.file.name + ".syncstate").exists()


def _sync(file: Path) -> str:
    """Has W&B send a log as far as it is whole.

    Returns:
        What its command said, which may be a lie: it calls uploads finished that have failed.

    Raises:
        GalpacaError: it took too long.
    """
    file = file.absolute()  # W&B's command runs elsewhere
    seconds = _LEAST_SECONDS + file.stat().st_size / _BYTES_PER_SECOND
    environment = {key: value for key, value in os.environ.items() if key not in ("WANDB_SERVICE", "WANDB_MODE")}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", str(file.parent)],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=file.parents[2],  # or its own logs come to be wherever one stands
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise _not_arrived(f"not finished after {seconds:.0f} s") from None
    return done.stdout + done.stderr


def _send_lines(run: service.Run, lines: Lines, *, synced: int | None = None, told: str = "") -> int:
    """Sends lines that the server lacks.

    Args:
        synced: number of the last line of the log that was just sent.
        told: output of the command that sent it.

    Returns:
        Number of the last line that it has now.
    """
    for seconds in _ASK_AGAIN_SECONDS:
        time.sleep(seconds)
        begun = _begin(run)
        last = service.last_line(begun)
        arrived = synced is None or last >= synced
        if synced is not None and last > synced:  # the log ends between a row's summary and the row
            last = begun.summary[LINE] = synced
        rows = Sent(up_to=last).missing(lines) if arrived else []
        try:
            history = service.History(begun)
            for one in rows:
                history.send(one)
            service.finish(begun)
        except Exception as error:
            raise _not_arrived(str(error)) from None
        if arrived:
            return max([last, *(one[LINE] for one in rows)])
    raise _not_arrived("; ".join(told.splitlines()[-3:]))


def _begin(run: service.Run) -> Any:
    try:
        return service.begin(run, "online")
    except Exception as error:  # of many kinds
        raise _not_arrived(str(error)) from None


def _not_arrived(why: str) -> GalpacaError:
    return GalpacaError(
        "the run is not completely uploaded to W&B",
        why=" ".join(why.split()),
        fix="run galpaca sync again with network access; it uploads what is missing",
    )
