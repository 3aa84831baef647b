"""Sends W&B what it lacks of a run folder: an id that stays, the last line that W&B has, the lines after it."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from galpaca.files.atomic import replace_file
from galpaca.runs.configuration import read_configuration
from galpaca.runs.folder import RunFolder
from galpaca.runs.lock import locked
from galpaca.tracking import service
from galpaca.tracking.places import Numbers, Places
from galpaca.tracking.rows import ALERT, COLUMNS, STEP, STREAMS, TABLE, Row, Rows, Stream

if TYPE_CHECKING:
    import wandb

_ALERT_EVERY_SECONDS = 1800


@dataclass(frozen=True)
class Ending:
    """How a session ends.

    Attributes:
        exit_code: other than 0 for a run that has failed or comes back: W&B takes any other for finished.
        comes_back: it will be resumed.
        is_alive: it runs meanwhile.
    """

    exit_code: int = 0
    comes_back: bool = False
    is_alive: bool = False


class Sender:
    """One session at W&B, the only one of the run folder at a time.

    Attributes:
        last: number of the last row that W&B has, or has been given, by stream.
        is_verified: all of these were there when the session started.

    Raises:
        InputError: another process sends the run.
        Exception: of many kinds, if W&B does not respond or rejects the run.
    """

    def __init__(self, run: service.Run) -> None:
        self.folder = run.folder
        self._rows = Rows(run.folder)
        with ExitStack() as stack:
            fix = "wait until it has sent the run, or stop it"
            stack.enter_context(locked(run.folder.wandb_lock, "another process is sending this run to W&B", fix))
            self._run = service.start(run)
            self._places = Places(run.folder.wandb / "places.jsonl")
            self.last, self.is_verified = last_numbers(self._run, self._places), True
            self._next_place = self._run.starting_step
            note(run.folder, self.last, verified=True)
            self._places.start(self.last)
            self._run.config.update(configuration(run.folder), allow_val_change=True)
            self._lock = stack.pop_all()

    def send(self, *, ended: bool = False) -> None:
        """Sends the rows that W&B lacks, as far as they are written.

        Args:
            ended: nothing more will be written.
        """
        for row in self._rows.new(ended=ended):
            if row.number > self.last[row.stream]:
                self._send(row)

    def finish(self, ending: Ending) -> None:
        """Sends and uploads the rest, keeps the run's record as an artifact, and ends the session.

        Raises:
            TimeoutError: not everything could be uploaded in time.
        """
        self.send(ended=not ending.is_alive)
        if not self.is_verified:
            service.send_record(self._run, [self.folder.record, self.folder.config])
        if ending.comes_back:
            self._run.mark_preempting()
        self._run.finish(exit_code=ending.exit_code)
        note(self.folder, self.last, verified=self.is_verified)
        self._lock.close()

    def abandon(self) -> None:
        """Ends the session at once, whatever W&B is still sending, and that of any other run in this process."""
        service.abandon()
        with suppress(Exception):  # its process is gone; without this, its threads may complain
            self._run.finish(exit_code=1)
        self._lock.close()

    def _send(self, row: Row) -> None:
        values = dict(row.values)
        if TABLE in values:
            values[TABLE] = service.library().Table(columns=list(COLUMNS), data=values[TABLE])
        if alert := values.pop(ALERT, None):
            self._run.alert(alert.title, alert.text, level="WARN", wait_duration=_ALERT_EVERY_SECONDS)
        # Nothing else may log to the run: the place is counted here. (W&B's own step is known to its process alone.)
        counters = {STEP: row.step, row.stream.number: row.number, row.stream.place: self._next_place}
        self._places.add(self._next_place, row.stream, row.number)
        self._run.log({**values, **counters})
        self._next_place += 1
        self.last[row.stream], self.is_verified = row.number, False


def configuration(folder: RunFolder) -> dict[str, Any]:
    """What W&B shows as the run's configuration: the whole of ``config.yaml`` and of ``run.json``."""
    config = read_configuration(folder.config)
    return {"config": config, **json.loads(folder.record.read_text(encoding="utf-8"))}


def last_numbers(run: wandb.Run, places: Places) -> dict[Stream, int]:
    """Number of the last row that the server has, by stream; -1 where it has none.

    W&B sends the summary of rows right before the rows. Where a kill came between the two, the summary names a row that
    is not there. The places of the session say which one is; without them, all rows but that one are taken to be.
    """
    there = places.last_before(run.starting_step)

    def last(stream: Stream) -> int:
        number = int(run.summary.get(stream.number, -1))
        if int(run.summary.get(stream.place, -1)) < run.starting_step:
            return number
        return min(there.get(stream, number - 1), number - 1)

    return {stream: last(stream) for stream in STREAMS}


def note(folder: RunFolder, last: Numbers, *, verified: bool) -> None:
    """Writes down what W&B has; ``verified`` where the server said so."""
    folder.wandb.mkdir(exist_ok=True)
    numbers = {stream.number: last[stream] for stream in STREAMS}
    replace_file(folder.wandb / "sent.json", json.dumps({**numbers, "verified": verified}) + "\n")


def noted(folder: RunFolder) -> tuple[dict[Stream, int], bool]:
    """What W&B is known to have, and whether the server said so; -1 where nothing is known."""
    file = folder.wandb / "sent.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {stream: int(known.get(stream.number, -1)) for stream in STREAMS}, bool(known.get("verified"))
