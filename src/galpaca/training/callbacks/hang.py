"""Ends a run that hangs, with the stacks of all ranks and the name of the late one."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from galpaca.runs.host import process_state
from galpaca.runs.stacks import StackReport, main_frame, note_stopped, read_reports, verdict, write_report
from galpaca.training.callbacks.backstop import Backstop
from galpaca.training.consensus import from_all_ranks

# How long a rank that has reported waits for the others' reports.
_REPORTS_SECONDS = 10.0
# And for the first of them to be gone: it asks a scheduler that may be busy, and who leaves before takes it along.
_FIRST_ENDS_SECONDS = 600.0
# For a rank that hangs in foreign code which holds the interpreter's lock, after the others had their time.
_BACKSTOP_SECONDS = 60.0
# A watch that looks this much later than it meant to was suspended, and the step along with it.
_SUSPENDED_SECONDS = 2.0
_RANK_0_FIRST_SECONDS = 5.0
# A start may take so long however short steps are: ranks import, on file systems that are busy with all of them.
_START_SECONDS = 60.0

# Of sysexits.h: a failure that may be gone the next time.
EXIT_CODE = 75

_STATES = {
    "": "is gone",
    "Z": "is dead",
    "T": "is stopped (SIGSTOP)",
    "t": "is held by a debugger",
    "D": "is blocked on a disk or a driver",
}


@dataclass(frozen=True)
class Peer:
    """A rank's process."""

    host: str
    pid: int


class HangWatch(L.Callback):
    """Watches from a thread of its own how long the step (or validation batch) at hand takes, and before the first one
    how long ranks wait for each other, and how long they load.

    Ranks go through the same places in the same order, so the one that has passed the fewest is late. Time in which the
    process was suspended does not count.

    Args:
        folder: folder for the stacks.
        limit_seconds: time limit for a step, including what follows before the next one.
        rank: this process's.
        end: ends the job; called with the verdict on one rank, the first to report. Of ranks that have not found each
            other, on each.
    """

    def __init__(self, folder: Path, limit_seconds: float, rank: int, end: Callable[[str], None]) -> None:
        self.folder, self.limit_seconds, self.end = folder, limit_seconds, end
        self._peers: list[Peer] = []
        self._rank = rank
        self._stopped = threading.Event()
        self._passed, self._place, self._since = 0, "", time.monotonic()
        self._backstop = Backstop(limit_seconds + _BACKSTOP_SECONDS)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches from before the launch until training ends, or the context."""
        self._begin("waiting for the other ranks")
        self._backstop.start()
        threading.Thread(target=self._watch, daemon=True, name="galpaca hang watch").start()
        try:
            yield
        finally:
            self._stop()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._begin("loading weights")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        me = (Peer(socket.gethostname(), os.getpid()), started)
        everyone = from_all_ranks(me, trainer.world_size)
        self.folder = self.folder / everyone[0][1]
        self._begin("first step")
        self._peers, self._rank = [peer for peer, _ in everyone], trainer.global_rank

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self._begin(f"step {trainer.global_step + 1}: forward")

    def on_before_backward(self, trainer: L.Trainer, *args: Any) -> None:
        self._reach(f"step {trainer.global_step + 1}: backward")

    def on_after_backward(self, trainer: L.Trainer, *args: Any) -> None:
        self._reach(f"step {trainer.global_step + 1}: after backward")

    def on_before_optimizer_step(self, trainer: L.Trainer, *args: Any) -> None:
        self._reach(f"step {trainer.global_step + 1}: update")

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._begin(f"step {trainer.global_step}: done; figures, checkpoint, or next data")

    def on_validation_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self._begin(f"validation after step {trainer.global_step}")

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self._reach(f"validation after step {trainer.global_step}: figures, or next data")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _reach(self, place: str) -> None:
        self._passed, self._place = self._passed + 1, place

    def _begin(self, place: str) -> None:
        self._reach(place)
        self._since = time.monotonic()

    def _stop(self) -> None:
        self._stopped.set()
        self._backstop.stop()

    def _watch(self) -> None:
        pause, looked, was_suspended = min(1.0, self.limit_seconds / 10), time.monotonic(), False
        while not self._stopped.wait(pause):
            now = time.monotonic()
            if (late := now - looked - pause) > _SUSPENDED_SECONDS:
                self._since, was_suspended = self._since + late, True
            looked = now
            self._backstop.beat()
            # One that was suspended alone has no end of its own to report, but others may be waiting for its report.
            is_asked = was_suspended and bool(self._peers) and any(self.folder.glob("rank-*.txt"))
            limit = self.limit_seconds if self._peers else max(self.limit_seconds, _START_SECONDS)
            if is_asked or now - self._since > limit:
                (self._report_and_end if self._peers else self._end_launch)()

    def _end_launch(self) -> None:
        """Of a start in which not all ranks have found each other."""
        seconds = round(time.monotonic() - self._since, 1)
        folder = self.folder / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        me = Peer(socket.gethostname(), os.getpid())
        write_report(folder, StackReport(self._rank, me.host, me.pid, self._passed, self._place, main_frame(), seconds))
        if self._rank:
            time.sleep(_RANK_0_FIRST_SECONDS)  # its end is that of all
        if not self._stopped.is_set():
            self.end(f"no first step: rank {self._rank} on {me.host} has been {self._place} for {seconds:.0f} s")
            os._exit(EXIT_CODE)

    def _report_and_end(self) -> None:
        me = self._peers[self._rank]
        seconds = round(time.monotonic() - self._since, 1)
        report = StackReport(self._rank, me.host, me.pid, self._passed, self._place, main_frame(), seconds)
        write_report(self.folder, report)
        reports = self._others(time.monotonic() + _REPORTS_SECONDS)
        if self._stopped.is_set():  # it continued after all, and is at its end
            return
        if reports[0].rank != self._rank:
            self._wait_for_end(self._peers[reports[0].rank])
            os._exit(EXIT_CODE)
        reported = {report.rank for report in reports}
        silent = {rank: self._silent(peer) for rank, peer in enumerate(self._peers) if rank not in reported}
        message = f"{report.place.partition(':')[0]} has taken {seconds:.0f} s"
        self.end(f"{message}: {verdict(reports, silent, self.folder)}")
        os._exit(EXIT_CODE)

    def _wait_for_end(self, first: Peer) -> None:
        """Of the one that ends the job. On another host nothing shows it, but its launcher ends this process, too."""
        deadline = time.monotonic() + _FIRST_ENDS_SECONDS
        is_here = first.host == self._peers[self._rank].host
        while time.monotonic() < deadline and not (is_here and process_state(first.pid) in ("", "Z")):
            time.sleep(0.5)

    def _others(self, deadline: float) -> Sequence[StackReport]:
        """What ranks report until all have, or time is up; a stopped one on this node is woken to report as well."""
        woken = False
        while True:
            reports = read_reports(self.folder)
            if len(reports) >= len(self._peers) or time.monotonic() > deadline:
                return reports
            if not woken and time.monotonic() > deadline - _REPORTS_SECONDS / 2:
                woken = True
                self._note_and_wake({report.rank for report in reports})
            time.sleep(0.1)

    def _note_and_wake(self, reported: set[int]) -> None:
        for rank, peer in enumerate(self._peers):
            if rank not in reported and peer.host == self._peers[self._rank].host and process_state(peer.pid) == "T":
                note_stopped(self.folder, rank)
                os.kill(peer.pid, signal.SIGCONT)

    def _silent(self, peer: Peer) -> str:
        if peer.host != self._peers[self._rank].host:
            return f"on {peer.host} does not respond"
        return f"on {peer.host} (process {peer.pid}) {_STATES.get(process_state(peer.pid), 'does not respond')}"
