"""The processes of a life, one a rank: by the rehearsal's coordinator, which works under srun, torchrun and neither."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from bench.life.plan import STARTS, LifePlan
from bench.session import OutOfTimeError
from galpaca.app.rehearsal.child import Child
from galpaca.app.rehearsal.coordinator import Coordinator, RankProcess

_SETTLE_SECONDS = 10.0
_LAST_LINES = 25


class _Child(Child):
    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)


class LifeProcess(RankProcess):
    """One rank's process of the current start; none where the start is on fewer ranks."""

    def __init__(self, life: LifePlan, rank: int) -> None:
        self.life, self.rank = life, rank
        self._child: _Child | None = None
        self._is_idle = False

    def start(self, phase: int) -> None:
        self._is_idle = STARTS[phase].on_fewer and self.rank != 0
        if not self._is_idle:
            log = self.life.log(self.rank)
            self._child = _Child(self.life.command(phase), self.life.environment(phase), log, phase)

    def code(self) -> int | None:
        return 0 if self._is_idle else super().code()

    def send(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send(number)


class Ranks:
    """All ranks, for the first of them to lead.

    Args:
        limit_seconds: of all that is led; what is left then is killed.
        watch: called between two looks at the processes.
    """

    def __init__(
        self, coordinator: Coordinator, process: LifeProcess, limit_seconds: float, watch: Callable[[], None]
    ) -> None:
        self.coordinator, self.process, self.watch = coordinator, process, watch
        self._deadline = time.monotonic() + limit_seconds

    def start(self, number: int) -> None:
        self.coordinator.start(number)

    def wait(self, until: Callable[[], bool] = lambda: False) -> dict[int, int] | None:
        """Waits for a condition, or until all have ended.

        Returns:
            Exit codes by rank; None if the condition was met first.

        Raises:
            OutOfTimeError: there is none left.
            RuntimeError: one rank failed and others hang on.
        """
        failed_at: float | None = None
        while len(codes := self.coordinator.codes()) < self.coordinator.num_ranks:
            self.coordinator.shutdown.check("life")
            self.watch()
            if until():
                return None
            if any(codes.values()) and failed_at is None:
                failed_at = time.monotonic()
            hangs = failed_at is not None and time.monotonic() > failed_at + _SETTLE_SECONDS
            if hangs:
                raise RuntimeError(f"{codes} ended, others hang: {self.printed()}")
            if time.monotonic() > self._deadline:
                raise OutOfTimeError(self.printed())
            time.sleep(self.coordinator.poll_seconds)
        return codes

    def kill(self) -> None:
        self.coordinator.kill()

    def send(self, number: signal.Signals) -> None:
        """To the first rank alone: the others hear of it from there."""
        self.process.send(number)

    def printed(self) -> str:
        """The end of the first rank's output."""
        log = self.process.life.log(0)
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        return "\n".join(text.rpartition("--- phase ")[2].splitlines()[-_LAST_LINES:])
