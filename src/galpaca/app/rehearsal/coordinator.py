"""Coordinates the rehearsal's processes, one per rank: rank 0 decides, the others follow."""

import os
import time
from collections.abc import Callable
from dataclasses import replace

from galpaca.app.rehearsal.channel import Channel, Order, Report
from galpaca.app.rehearsal.child import Child
from galpaca.app.rehearsal.plan import RehearsalPlan, environment_of
from galpaca.errors import GalpacaError, InputError, StoppedBySignal
from galpaca.runs.shutdown import Shutdown

# A tiny model's steps are quick; many ranks' looks into a shared folder are not free.
_POLL_SECONDS_ALONE, _POLL_SECONDS = 0.02, 0.1
# Imports on a busy file system take minutes; srun starts all tasks at once.
_GATHER_SECONDS = 300.0
_ANSWER_SECONDS = 60.0


class RankProcess:
    """Runs one rank's process in the current phase."""

    def __init__(self, plan: RehearsalPlan, rank: int) -> None:
        self.plan, self.rank = plan, rank
        self._child: Child | None = None

    def start(self, phase: int) -> None:
        environment = environment_of(phase, os.environ)
        self._child = Child(self.plan.command, environment, self.plan.log(self.rank), phase)

    def code(self) -> int | None:
        return None if self._child is None else self._child.poll()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()


class Coordinator:
    """Controls all ranks from rank 0.

    Args:
        rank_process: runs the process of rank 0.
        num_ranks: number of processes launched as one rehearsal.
        channel: channel to the other ranks.
        shutdown: checked while waiting.
    """

    def __init__(self, rank_process: RankProcess, num_ranks: int, channel: Channel, shutdown: Shutdown) -> None:
        self.rank_process, self.channel, self.shutdown = rank_process, channel, shutdown
        self.others = range(1, num_ranks)
        self._ids: dict[str, str] = {}
        self._number = 0

    @property
    def poll_seconds(self) -> float:
        """Seconds to sleep between two polls."""
        return _POLL_SECONDS if self.others else _POLL_SECONDS_ALONE

    @property
    def num_ranks(self) -> int:
        return 1 + len(self.others)

    def gather(self) -> None:
        """Waits for all ranks to arrive.

        Raises:
            InputError: some ranks do not arrive in time.
        """
        if not self.others:
            return
        self.channel.open()
        deadline = time.monotonic() + _GATHER_SECONDS
        while len(found := self._reports()) < len(self.others):
            self._ids = {str(rank): report.id for rank, report in found.items()}  # an early end is sent to these, too
            self.shutdown.check("rehearsal")
            if time.monotonic() > deadline:
                raise InputError(
                    f"only {1 + len(found)} of {self.num_ranks} processes arrived",
                    where=self.channel.folder,
                    fix="srun galpaca rehearse ..., with one task per GPU and run.root on a shared file system",
                )
            time.sleep(_POLL_SECONDS)
        self._ids = {str(rank): report.id for rank, report in found.items()}

    def start(self, phase: int) -> None:
        self._order("start", phase=phase)
        self.rank_process.start(phase)

    def kill(self) -> None:
        """Kills the processes of all ranks and waits until they are gone."""
        self._order("kill")
        self.rank_process.kill()
        self._wait_for_others()

    def codes(self) -> dict[int, int]:
        """Exit codes, by rank, of the processes that have ended in this phase.

        Raises:
            StoppedBySignal: another rank was stopped.
        """
        reports = self._reports()
        if any(report.stopped for report in reports.values()):
            raise StoppedBySignal("rehearsal stopped: another of its processes received a signal")
        codes = {rank: report.code for rank, report in reports.items() if report.number == self._number}
        return {rank: code for rank, code in {0: self.rank_process.code(), **codes}.items() if code is not None}

    def end(self, code: int) -> None:
        """Ends all other ranks with this exit code, waits for them, and removes the channel."""
        self.rank_process.kill()
        if self._ids:
            self._order("end", code=code)
            self._wait_for_others()
        if self.others:
            self.channel.close()

    def _order(self, do: str, *, phase: int = 0, code: int = 0) -> None:
        self._number += 1
        if self.others:
            self.channel.give(Order(self._number, self._ids, do, phase, code))

    def _reports(self) -> dict[int, Report]:
        found = {rank: self.channel.last_report(rank) for rank in self.others}
        return {rank: report for rank, report in found.items() if report is not None}

    def _wait_for_others(self) -> None:
        """Waits until every rank has answered or is stopped; gives up on ranks lost with their node."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            done = [r for r in self._reports().values() if r.stopped or r.number == self._number]
            if len(done) == len(self.others):
                return
            time.sleep(_POLL_SECONDS)


def follow(rank_process: RankProcess, channel: Channel, shutdown: Shutdown, seconds: float) -> int:
    """Carries out the orders of rank 0 until the end.

    Args:
        rank_process: runs this rank's process.
        channel: channel to rank 0.
        shutdown: checked while waiting.
        seconds: time limit of the rehearsal; some time after it, rank 0 is considered lost.

    Returns:
        The exit code ordered by rank 0.
    """
    report = Report()
    deadline = time.monotonic() + _GATHER_SECONDS + seconds + _ANSWER_SECONDS
    try:
        while True:
            shutdown.check("rehearsal")
            if time.monotonic() > deadline:
                raise _lost()
            if channel.last_report(rank_process.rank) != report:
                channel.report(rank_process.rank, report)
            order = channel.order(report.id)
            if order is not None and order.number > report.number:
                _DO[order.do](rank_process, order)
                report = replace(report, number=order.number, code=None)
                channel.report(rank_process.rank, report)
                if order.do == "end":
                    return order.code
            report = replace(report, code=rank_process.code())
            time.sleep(_POLL_SECONDS)
    except StoppedBySignal:
        channel.report(rank_process.rank, replace(report, stopped=True))
        raise
    finally:
        rank_process.kill()


_DO: dict[str, Callable[[RankProcess, Order], None]] = {
    "start": lambda rank_process, order: rank_process.start(order.phase),
    "kill": lambda rank_process, order: rank_process.kill(),
    "end": lambda rank_process, order: rank_process.kill(),
}


def _lost() -> GalpacaError:
    error = GalpacaError("rank 0 of the rehearsal does not respond", fix="check the logs of its node; try again")
    error.of_one_rank = True
    return error
