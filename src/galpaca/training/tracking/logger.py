"""The logger that Lightning and the sinks see."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from galpaca.runs.history import read_samples
from galpaca.runs.lines import SampleLine
from galpaca.runs.metrics import read_metrics
from galpaca.training.tracking import service
from galpaca.training.tracking.rows import row
from galpaca.training.tracking.samples import SampleTables
from galpaca.training.tracking.session import Session
from galpaca.training.tracking.worker import Worker, kill_service

# To send what is queued, beside the time that W&B itself may take to upload.
_QUEUE_SECONDS = 15.0
_PREEMPTING_SECONDS = 15.0
_ALERT_EVERY_SECONDS = 1800


class WandbLogger(Logger):
    """One W&B run for a run folder, with every line of ``metrics.jsonl`` once.

    All that W&B does happens in a thread beside the training. Whatever goes wrong there is told once, and the run goes
    on without W&B; the next start, or ``galpaca sync``, sends what is missing.

    Args:
        run: what it is called at W&B.
        metrics, samples: ``metrics.jsonl`` and ``samples.jsonl`` with what this start does not make again.
        records: files that are kept with the run at its end.
    """

    def __init__(self, run: service.Run, metrics: Path, samples: Path, records: Sequence[Path]) -> None:
        super().__init__()
        self._run, self._records = run, records
        self._earlier = list(read_metrics(metrics))
        self._tables = SampleTables()
        self._earlier_tables = self._tables.tables(read_samples(samples))
        self._session: Session | None = None
        self._failed = self._closed = False
        service.library()  # here, since two threads that import the same modules may wait for each other
        self._worker = Worker(self._begin, self._lost, self._end)

    @property
    def name(self) -> str:
        return self._run.project

    @property
    def version(self) -> str:
        return self._run.id

    @property
    def next_command(self) -> str | None:
        """What uploads the rest, if there is one, once the logger is closed."""
        mode = self._session.mode if self._session else "offline"
        at_its_place = mode == "disabled" or (mode == "online" and not self._failed)
        return None if at_its_place else f"galpaca sync {self._run.folder}"

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Logs a line; one that W&B has already is left out."""
        if step is not None:
            one = row(metrics, step)
            self._worker.do(lambda session: session.send(one))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Logs the configuration, in place of that of an earlier start."""
        values = dict(vars(params)) if isinstance(params, Namespace) else dict(params)
        self._try("the configuration", lambda session: session.wandb.config.update(values, allow_val_change=True))

    def log_samples(self, step: int, rows: Sequence[SampleLine]) -> None:
        """Logs a table of sample answers, unless W&B has one of this step or a later one.

        Args:
            rows: rows with ``instruction``, ``answer``, and optionally ``input`` and ``category``.
        """
        table = self._tables.table(step, rows)
        self._try("sample answers", lambda session: session.send_samples(step, table))

    def alert(self, title: str, text: str) -> None:
        """Sends a message to whoever has asked W&B for alerts; the same title at most every half an hour."""
        self._try(
            "an alert",
            lambda session: session.wandb.alert(title, text, level="WARN", wait_duration=_ALERT_EVERY_SECONDS),
        )

    def mark_preempting(self) -> None:
        """Tells W&B that the run will come back, and closes it, for no more than half a minute: the scheduler waits,
        and the next start sends what is left."""
        self._worker.do(lambda session: session.wandb.mark_preempting())
        self.close(exit_code=1, seconds=_PREEMPTING_SECONDS)

    def finalize(self, status: str) -> None:
        """Closes a run that has failed; the record of one that has not is yet to be completed, before ``close``."""
        if status != "success":
            self.close(exit_code=1)

    def close(self, exit_code: int = 0, *, seconds: float | None = None) -> None:
        """Sends the record and what is left; again, it does nothing. Never raises.

        Args:
            exit_code: other than 0 for a run that has failed or comes back.
            seconds: how long to wait; default: somewhat less than a minute.
        """
        if self._closed:
            return
        self._closed = True
        self._try("the run's record", lambda session: service.send_record(session.wandb, self._records))
        self._worker.do(lambda session: session.finish(exit_code))
        if seconds is None:
            seconds = service.FINISH_SECONDS + _QUEUE_SECONDS
        if not self._worker.close(seconds):
            self._lost(TimeoutError(f"no response for {seconds:.0f} s"))
            kill_service()
            self._worker.close(_QUEUE_SECONDS)

    def _begin(self) -> Session:
        self._session = Session(self._run, self._earlier, self._earlier_tables, _say)
        return self._session

    def _try(self, what: str, call: Callable[[Session], None]) -> None:
        """Makes a call that the figures do not depend on."""

        def tried(session: Session) -> None:
            try:
                call(session)
            except OSError:  # W&B's process is gone
                raise
            except Exception as error:
                _say(f"W&B rejected {what} ({_told(error)})")

        self._worker.do(tried)

    def _end(self) -> None:
        if run := getattr(self._session, "wandb", None):
            with suppress(Exception):  # after an error; else it has ended already
                service.finish(run, exit_code=1)
        service.shut_down()

    def _lost(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            _say(f"W&B logging stopped ({_told(error)}); training continues, and galpaca sync uploads the rest")


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _say(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
