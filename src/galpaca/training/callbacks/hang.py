"""Ends a run that hangs, with the stacks of all ranks and the name of the late one."""

import faulthandler
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from galpaca.runs.host import process_state
from galpaca.runs.stacks import StackReport, main_frame, note_stopped, read_reports, verdict, write_report
from galpaca.training.consensus import from_all_ranks

# How long a rank that has reported waits for the others' reports.
_REPORTS_SECONDS = 10.0
# And for the first of them to be gone: it asks a scheduler that may be busy, and who leaves before takes it along.
_FIRST_ENDS_SECONDS = 600.0
# Python's own timer needs no interpreter lock: for a rank that hangs in foreign code which holds it.
_BACKSTOP_SECONDS = 60.0

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
    """Watches from a thread of its own how long the step (or validation batch) at hand takes.

    Ranks go through the same places in the same order, so the one that has passed the fewest is late.

    Args:
        folder: folder for the stacks.
        limit_seconds: time limit for a step, including what follows before the next one.
        end: ends the job; called with the verdict on one rank, the first to report.
    """

    def __init__(self, folder: Path, limit_seconds: float, end: Callable[[str], None]) -> None:
        self.folder, self.limit_seconds, self.end = folder, limit_seconds, end
        self._peers: list[Peer] = []
        self._rank = 0
        self._stopped = threading.Event()
        self._passed, self._place, self._since = 0, "before the first step", time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        me = (Peer(socket.gethostname(), os.getpid()), started)
        everyone = from_all_ranks(me, trainer.world_size)
        self._peers, self._rank = [peer for peer, _ in everyone], trainer.global_rank
        self.folder = self.folder / everyone[0][1]
        self._begin("first step")
        threading.Thread(target=self._watch, daemon=True, name="galpaca hang watch").start()

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
        faulthandler.dump_traceback_later(self.limit_seconds + _BACKSTOP_SECONDS, exit=True, file=2)

    def _stop(self) -> None:
        self._stopped.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._stopped.wait(min(1.0, self.limit_seconds / 10)):
            if time.monotonic() - self._since > self.limit_seconds:
                self._report_and_end()

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
