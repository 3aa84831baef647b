"""Which row was given which place in W&B's history, written down in the run folder before it is sent."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from galpaca.files.atomic import replace_file
from galpaca.files.disks import naming
from galpaca.tracking.rows import STREAMS, Stream

Numbers = Mapping[Stream, int]

# Of what a stream had when a session started: ahead of every row.
_BEFORE = -1


class Places:
    """The places of one session's rows; the next session starts anew.

    W&B's summary may be several rows ahead of its history when a kill comes. How many rows W&B has is known, and so,
    from these places, which they are.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def last_before(self, place: int) -> dict[Stream, int]:
        """The number of the last row of each stream that has a smaller place, for streams that are written down."""
        streams = {stream.number: stream for stream in STREAMS}
        last: dict[Stream, int] = {}
        for text in self._file.read_text(encoding="utf-8").splitlines() if self._file.is_file() else []:
            with suppress(ValueError, KeyError, TypeError):  # the last line of a process that was killed
                at, name, number = json.loads(text)
                if at < place:
                    last[streams[name]] = int(number)
        return last

    def start(self, last: Numbers) -> None:
        """Starts anew, from the number of the last row of each stream that W&B has."""
        lines = [json.dumps([_BEFORE, stream.number, last[stream]]) for stream in STREAMS]
        replace_file(self._file, "\n".join(lines) + "\n")

    def add(self, place: int, stream: Stream, number: int) -> None:
        with naming(self._file), self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([place, stream.number, number]) + "\n")
