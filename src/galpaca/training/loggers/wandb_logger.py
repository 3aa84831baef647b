"""The logger that shows a run at W&B while it trains."""

import os
import sys
import threading
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger

from galpaca.runs.lines import Alert
from galpaca.runs.system import SystemLog
from galpaca.tracking import service
from galpaca.tracking.follower import Follower
from galpaca.tracking.rows import is_line
from galpaca.tracking.sender import Ending

_POLL_SECONDS = 1.0
# To send what is left, in addition to the time that W&B itself may take to upload.
_LEFT_SECONDS = 15.0
_PREEMPTING_SECONDS = 15.0


class WandbLogger(Logger):
    """Follows the run folder in a thread and sends W&B what it lacks; records what the folder would not have.

    Training never waits for W&B, and nothing that goes wrong there ends a run: the thread tries again, and so do the
    next start and ``galpaca sync``. Without a key, or with ``WANDB_MODE=offline``, nothing is sent.
    """

    def __init__(self, run: service.Run) -> None:
        super().__init__()
        self._run = run
        self._closing, self._ending, self._is_sent = threading.Event(), Ending(), False
        self._thread: threading.Thread | None = None
        self._elsewhere = f"galpaca sync --follow {run.folder.path} shows it from a machine with network access"
        self.follower = Follower(run, _warn, f"trying again, and {self._elsewhere}")
        self._system = None if os.environ.get("WANDB_MODE") == "disabled" else SystemLog(run.folder.system)
        if self._system is not None:
            self._start()

    @property
    def name(self) -> str:
        return self._run.project

    @property
    def version(self) -> str:
        return self._run.id

    @property
    def next_command(self) -> str | None:
        """What sends the rest, if there is one, once the logger is closed."""
        return None if self._system is None or self._is_sent else f"galpaca sync {self._run.folder.path}"

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: ``config.yaml`` and ``run.json`` are sent."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Records what is no line of ``metrics.jsonl``, such as the cost of a checkpoint; lines are read from there."""
        if self._system is None or step is None:
            return
        self._system.step = max(step, self._system.step)
        if not is_line(metrics):
            self._system.write(metrics)

    def alert(self, title: str, text: str) -> None:
        """Records a message for those who enabled alerts at W&B."""
        if self._system is not None:
            self._system.write({}, Alert(title=title, text=text))

    def mark_preempting(self) -> None:
        """Closes a run that comes back, in half a minute: the scheduler waits, and the next start sends the rest."""
        self._close(Ending(exit_code=1, comes_back=True), _PREEMPTING_SECONDS)

    def finalize(self, status: str) -> None:
        """Closes a run that has failed; the record of one that has not is yet to be completed, before ``close``."""
        if status != "success":
            self.close(exit_code=1)

    def close(self, exit_code: int = 0) -> None:
        """Sends the record and what is left, for somewhat less than a minute; again, it does nothing. Never raises."""
        self._close(Ending(exit_code=exit_code), self._run.finish_seconds + _LEFT_SECONDS)

    def _close(self, ending: Ending, seconds: float) -> None:
        if self._closing.is_set():
            return
        if self._system is not None:
            self._system.close()
        self._ending = ending
        self._closing.set()
        if self._thread is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            _warn(f"W&B: no response for {seconds:.0f} s; what is missing is sent later")
            self.follower.is_lost = True  # which needs no other message
            service.abandon()
            self._thread.join(_LEFT_SECONDS)

    def _start(self) -> None:
        # The library is imported here, since two threads that import the same modules may wait for each other.
        mode = os.environ.get("WANDB_MODE", "online")
        if mode != "online" or not service.has_key():
            reason = "no API key" if mode == "online" else f"WANDB_MODE={mode}"
            print(f"W&B: {reason}; {self._elsewhere} while it trains", flush=True)
            return
        self._thread = threading.Thread(target=self._follow, name="galpaca-wandb", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        self.follower.step()
        while not self._closing.wait(_POLL_SECONDS):
            self.follower.step()
        if self.follower.was_connected:  # else there is hardly a network now
            self._is_sent = self.follower.step(self._ending, at_once=True)
        service.shut_down()


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
