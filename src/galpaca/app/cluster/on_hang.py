"""Ends a run that hangs."""

import signal
import sys
from collections.abc import Callable

from galpaca.app.cluster.slurm import decide, requeue
from galpaca.app.config.schema import Config
from galpaca.errors import GalpacaError
from galpaca.runs.folder import RunFolder


def end_hung_run(config: Config, folder: RunFolder) -> Callable[[str], None]:
    """Builds what the hang watch calls with its verdict, on one rank, from a thread: the main thread hangs."""

    def end(verdict: str) -> None:
        error = GalpacaError(
            verdict,
            where=folder.path,
            why=f"hang.minutes={config.hang.minutes:g} limits a step, waiting for other ranks, and loading; "
            f"all ranks' stacks are in {folder.stacks}",
            fix="rerun the command to resume from the last checkpoint; hang.minutes=N raises the limit",
        )
        print(f"error: {error}", file=sys.stderr, flush=True)
        if config.hang.requeue and (message := requeue(decide(signal.SIGUSR1))):
            print(message, file=sys.stderr, flush=True)

    return end
