"""The rehearsal's processes, one a rank, acting as one: rank 0 decides, the others follow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

from galpaca.app.rehearsal.channel import Channel, Order, Report
from galpaca.app.rehearsal.child import Child
from galpaca.app.rehearsal.interrupts import Interrupts
from galpaca.app.rehearsal.script import Script, environment_of
from galpaca.errors import GalpacaError, InputError, StoppedBySignal

# A tiny model's steps are quick; many ranks' looks into a shared folder are not free.
_POLL_SECONDS_ALONE, _POLL_SECONDS = 0.02, 0.1
# Imports on a busy file system take minutes; srun starts all tasks at once.
_GATHER_SECONDS = 300.0
_ANSWER_SECONDS = 60.0


class Hand:
    """One rank's process of the phase under way."""

    def __init__(self, script: Script, rank: int) -> None:
        self.script, self.rank = script, rank
        self._child: Child | None = None

    def start(self, phase: int) -> None:
        environment = environment_of(phase, os.environ)
        log = self.script.log(self.rank)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"--- phase {phase}\n")
        self._child = Child(self.script.command, environment, log)

    def code(self) -> int | None:
        return None if self._child is None else self._child.poll()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()


class Crew:
    """All ranks, as rank 0 sees them.

    Args:
        hand: of rank 0.
        num_ranks: processes that were started as one rehearsal.
        channel: to the others, if there are any.
        interrupts: looked at while waiting.
    """

    def __init__(self, hand: Hand, num_ranks: int, channel: Channel, interrupts: Interrupts) -> None:
        self.hand, self.channel, self.interrupts = hand, channel, interrupts
        self.others = range(1, num_ranks)
        self._ids: dict[str, str] = {}
        self._number = 0

    @property
    def poll_seconds(self) -> float:
        """To sleep between two looks."""
        return _POLL_SECONDS if self.others else _POLL_SECONDS_ALONE

    @property
    def num_ranks(self) -> int:
        return 1 + len(self.others)

    def gather(self) -> None:
        """Returns when all are there.

        Raises:
            InputError: some do not come.
        """
        if not self.others:
            return
        self.channel.open()
        deadline = time.monotonic() + _GATHER_SECONDS
        while len(found := self._reports()) < len(self.others):
            self._ids = {str(rank): report.id for rank, report in found.items()}  # these are told of an early end, too
            self.interrupts.check()
            if time.monotonic() > deadline:
                raise InputError(
                    f"{1 + len(found)} of {self.num_ranks} processes have come",
                    where=self.channel.folder,
                    fix="srun galpaca rehearse ..., with one task for each GPU, and run.root where all nodes see it",
                )
            time.sleep(_POLL_SECONDS)
        self._ids = {str(rank): report.id for rank, report in found.items()}

    def start(self, phase: int) -> None:
        self._order("start", phase=phase)
        self.hand.start(phase)

    def kill(self) -> None:
        """Returns when no rank has a process any more."""
        self._order("kill")
        self.hand.kill()
        self._wait_for_others()

    def codes(self) -> dict[int, int]:
        """Exit codes of the phase's processes that have ended, by rank.

        Raises:
            StoppedBySignal: another rank was stopped.
        """
        reports = self._reports()
        if any(report.stopped for report in reports.values()):
            raise StoppedBySignal("the rehearsal is stopped: another of its processes got a signal")
        told = {rank: report.code for rank, report in reports.items() if report.number == self._number}
        return {rank: code for rank, code in {0: self.hand.code(), **told}.items() if code is not None}

    def end(self, code: int) -> None:
        """Lets all others end with this code, and returns when they have nothing here any more."""
        self.hand.kill()
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
        found = {rank: self.channel.told(rank) for rank in self.others}
        return {rank: report for rank, report in found.items() if report is not None}

    def _wait_for_others(self) -> None:
        """A rank that does not answer is lost with its node, and nobody waits for it for long."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            done = [r for r in self._reports().values() if r.stopped or r.number == self._number]
            if len(done) == len(self.others):
                return
            time.sleep(_POLL_SECONDS)


def follow(hand: Hand, channel: Channel, interrupts: Interrupts, seconds: float) -> int:
    """Does what rank 0 says until the end.

    Args:
        hand: of this rank.
        channel: to rank 0.
        interrupts: looked at all the time.
        seconds: that the rehearsal may take; after some more, rank 0 is taken for lost.

    Returns:
        The exit code that rank 0 gives.
    """
    report = Report()
    deadline = time.monotonic() + _GATHER_SECONDS + seconds + _ANSWER_SECONDS
    try:
        while True:
            interrupts.check()
            if time.monotonic() > deadline:
                raise _lost()
            if channel.told(hand.rank) != report:
                channel.report(hand.rank, report)
            order = channel.order(report.id)
            if order is not None and order.number > report.number:
                _DO[order.do](hand, order)
                report = replace(report, number=order.number, code=None)
                channel.report(hand.rank, report)
                if order.do == "end":
                    return order.code
            report = replace(report, code=hand.code())
            time.sleep(_POLL_SECONDS)
    except StoppedBySignal:
        channel.report(hand.rank, replace(report, stopped=True))
        raise
    finally:
        hand.kill()


_DO: dict[str, Callable[[Hand, Order], None]] = {
    "start": lambda hand, order: hand.start(order.phase),
    "kill": lambda hand, order: hand.kill(),
    "end": lambda hand, order: hand.kill(),
}


def _lost() -> GalpacaError:
    error = GalpacaError("rank 0 of the rehearsal does not answer", fix="look at what its node says; try again")
    error.of_one_rank = True
    return error
