"""The end of a run that stands still."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from galpaca.app.config import Config
from galpaca.app.slurm import decide, requeue
from galpaca.errors import GalpacaError
from galpaca.runs.folder import RunFolder


def end_hung(config: Config, folder: RunFolder) -> Callable[[str], None]:
    """What the watch calls with its verdict, in one rank, from a thread: the main one hangs."""

    def end(verdict: str) -> None:
        error = GalpacaError(
            verdict,
            where=folder.path,
            why=f"no step may take more than {config.hang.minutes:g} minutes; all ranks' stacks are in {folder.stacks}",
            fix="the same command goes on from the last checkpoint; hang.minutes=N allows for more",
        )
        print(f"error: {error}", file=sys.stderr, flush=True)
        if config.hang.requeue and (told := requeue(decide(signal.SIGUSR1))):
            print(told, file=sys.stderr, flush=True)

    return end
