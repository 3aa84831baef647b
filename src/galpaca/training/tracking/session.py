"""One start's W&B run: begun online or offline, given every line once, ended. It lives in the worker's thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from galpaca.errors import GalpacaError
from galpaca.training.tracking import service
from galpaca.training.tracking.rows import LINE, STEP, Sent
from galpaca.training.tracking.samples import COLUMNS
from galpaca.training.tracking.segments import find_segments, mark_uploaded, note_uploaded
from galpaca.training.tracking.upload import Lines, upload

Table = list[list[str]]


class Session:
    """Begins, and sends what W&B lacks of earlier starts.

    Args:
        run: what it is called at W&B.
        earlier: lines of ``metrics.jsonl`` that this start does not take again.
        tables: step and table of sample answers that this start does not make again.
        say: takes what a person should know.
    """

    def __init__(
        self, run: service.Run, earlier: Lines, tables: Sequence[tuple[int, Table]], say: Callable[[str], None]
    ) -> None:
        self._run, self._say = run, say
        self._segments = find_segments(run.folder, run.id)
        self.mode: service.Mode = _wanted_mode()
        if self.mode == "online":
            self.mode = self._go_online(earlier)
        if self.mode != "online":
            self.wandb = service.begin(run, self.mode)
        self._history = service.History(self.wandb)
        self._sent = self._already_sent()
        self._samples_up_to = self._last_samples()
        for row in self._sent.missing(earlier):
            self.send(row)
        for step, table in tables:
            self.send_samples(step, table)

    def send(self, row: Mapping[str, Any]) -> None:
        """Sends a row, unless it is of a line that W&B has already: the step was taken before, with the same
        figures."""
        if LINE in row:
            if row[LINE] in self._sent:
                return
            self._sent.add(row[LINE])
        self._history.send({LINE: self._sent.last + 1, **row})

    def send_samples(self, step: int, rows: Table) -> None:
        """Sends a table of sample answers, unless W&B has one of this step or a later one."""
        if step <= self._samples_up_to:
            return
        self._samples_up_to = step
        table = service.library().Table(columns=list(COLUMNS), data=rows)
        self.send({service.SAMPLES: table, service.SAMPLES_STEP: step, STEP: step})

    def finish(self, exit_code: int) -> None:
        """Uploads the rest and ends the run at W&B.

        Raises:
            TimeoutError: not everything could be uploaded in time.
        """
        file = Path(self.wandb.dir).parent / f"run-{self._run.id}.wandb"
        service.finish(self.wandb, exit_code)
        if self.mode == "online":
            mark_uploaded(file)
            note_uploaded(self._run.folder, self._sent.last)

    def _go_online(self, earlier: Lines) -> service.Mode:
        if not service.is_reachable():
            self._say("W&B does not respond; logging offline")
            return "offline"
        try:
            if any(one.offline and one.started and not one.uploaded for one in self._segments):
                upload(self._run, self._segments, earlier)
            self.wandb = service.begin(self._run, "online")
        except GalpacaError as error:  # else this start's lines would come before earlier ones
            self._say(f"cannot upload earlier starts; logging offline: {error.why}")
        except Exception as error:  # of many kinds
            self._say(f"W&B rejected the run; logging offline: {_first_line(error)}")
        else:
            return "online"
        service.shut_down()  # it would not let a run begin twice
        return "offline"

    def _already_sent(self) -> Sent:
        # Online only the server knows: what a log holds may never have arrived, and the reverse.
        if self.mode == "online":
            return Sent(service.last_line(self.wandb))
        return Sent(others={number for one in self._segments for number in one.lines})

    def _last_samples(self) -> int:
        if self.mode == "online":
            return int(self.wandb.summary.get(service.SAMPLES_STEP, -1))
        rows = [row for one in self._segments for row in one.rows]
        return max((int(row[service.SAMPLES_STEP]) for row in rows if service.SAMPLES_STEP in row), default=-1)


def _wanted_mode() -> service.Mode:
    asked = os.environ.get("WANDB_MODE", "online")
    if asked == "disabled":
        return "disabled"
    return "online" if asked == "online" and service.has_key() else "offline"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
