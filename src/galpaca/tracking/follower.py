"""Keeps W&B up to date with a run folder, through lost networks and a W&B that ends or hangs."""

import time
from collections.abc import Callable

from galpaca.errors import InputError, first_line
from galpaca.tracking import service
from galpaca.tracking.sender import Ending, Sender

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 300.0
_CHECK_EVERY_SECONDS = 60.0


class Follower:
    """Sends what is new whenever it is called; a session that is lost is started again from what the server has.

    Args:
        say: takes messages for a person: once when W&B is lost, and once when it is back.
        advice: what to do, or what will be done, where it is lost.

    Attributes:
        sender: the session; None before the first and after a lost one.
        was_connected: there was a session.
        is_lost: the last attempt failed.
    """

    def __init__(self, run: service.Run, say: Callable[[str], None], advice: str = "trying again") -> None:
        self.run, self._say, self._advice = run, say, advice
        self.sender: Sender | None = None
        self.was_connected = self.is_lost = False
        self._pause_seconds, self._retry_at, self._check_at = _FIRST_PAUSE_SECONDS, 0.0, 0.0

    def step(self, ending: Ending | None = None, *, at_once: bool = False) -> bool:
        """As ``advance``, but what goes wrong is said once, and tried again after a pause that grows.

        Args:
            at_once: without that pause.

        Returns:
            Whether the session has ended as requested.
        """
        if self.sender is None and not at_once and time.monotonic() < self._retry_at:
            return False
        try:
            self.advance(ending)
        except Exception as error:  # W&B raises many kinds
            self.lose(error)
            return False
        return ending is not None

    def advance(self, ending: Ending | None = None) -> None:
        """Sends what is new, in a session that is started if there is none, and ended if ``ending`` says how.

        Raises:
            InputError: another process sends the run.
            Exception: of many kinds, if W&B does not respond or rejects the run.
        """
        if self.sender is None or time.monotonic() >= self._check_at:
            if not service.is_reachable():
                raise ConnectionError(f"{service.server()} does not respond")
            self._check_at = time.monotonic() + _CHECK_EVERY_SECONDS
        if self.sender is None:
            self.sender = Sender(self.run)
            self.was_connected = True
        self.sender.finish(ending) if ending else self.sender.send()
        if self.is_lost:
            self._say("W&B responds again")
        self.is_lost, self._pause_seconds = False, _FIRST_PAUSE_SECONDS

    def lose(self, error: Exception) -> None:
        """Gives up the session; the next one starts from what the server has."""
        if not self.is_lost:
            self.is_lost = True
            self._say(f"W&B: {first_line(error)}; {self._advice}")
        if self.sender is not None:
            self.sender.abandon()
            self.sender = None
        if not isinstance(error, InputError):  # that another process sends the run is nothing that W&B knows of
            service.shut_down()
        self._retry_at = time.monotonic() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
