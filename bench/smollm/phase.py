"""A phase of the measurement: skipped where its result is there and of the same inputs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from galpaca.errors import InputError
from galpaca.files.atomic import replace_file
from galpaca.files.checksums import json_digest
from galpaca.formatting import format_duration

Found = dict[str, Any]


class Done(NamedTuple):
    """A phase's result.

    Attributes:
        inputs: digest of all that it was made of.
        seconds: that it took.
    """

    inputs: str
    seconds: float
    found: Found


@dataclass(frozen=True)
class Phase:
    """One phase.

    Attributes:
        name: of its file, too.
        after: phases whose results it is made of.
        inputs: what else it is made of, JSON-ready.
        run: measures; gets the results of the phases before it by name.
        outputs: files or folders without which its result is worth nothing.
    """

    name: str
    after: tuple[str, ...]
    inputs: Any
    run: Callable[[dict[str, Found]], Found]
    outputs: tuple[Path, ...] = ()


class Phases:
    """Runs phases, and keeps the result of each in ``FOLDER/NAME.json``.

    Args:
        folder: of the results.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder, self._console = folder, console
        self.done: dict[str, Done] = {}

    def run(self, phase: Phase, *, is_wanted: bool = True) -> None:
        """Runs a phase, or takes its result.

        Args:
            is_wanted: run it if its result is not there; else only take it.

        Raises:
            InputError: a phase before it has no result.
        """
        missing = [name for name in phase.after if name not in self.done]
        if missing and is_wanted:
            raise InputError(f"{' and '.join(missing)} must come before", where=phase.name, fix="leave out --only")
        if missing:
            return
        inputs = json_digest([phase.inputs, [[name, self.done[name].inputs] for name in phase.after]])
        known = self._known(phase)
        if known is not None and known.inputs == inputs and all(path.exists() for path in phase.outputs):
            self.done[phase.name] = known
            if is_wanted:
                self._console.print(f"{phase.name}: done before, in {format_duration(known.seconds)}", style="dim")
        elif is_wanted:
            self._measure(phase, inputs)

    def _measure(self, phase: Phase, inputs: str) -> None:
        self._console.print(f"{phase.name} ...", style="bold")
        with timed() as seconds:
            found = phase.run({name: self.done[name].found for name in phase.after})
        done = Done(inputs, round(seconds(), 2), found)
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._folder / f"{phase.name}.json", json.dumps(done._asdict(), indent=1) + "\n")
        self.done[phase.name] = done
        self._console.print(f"{phase.name}: {format_duration(done.seconds)}", style="green")

    def _known(self, phase: Phase) -> Done | None:
        file = self._folder / f"{phase.name}.json"
        if not file.is_file():
            return None
        try:
            return Done(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise InputError("the file is damaged", where=file, fix="delete it to measure again") from None


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Gives a function that says the seconds since it was entered."""
    start = time.perf_counter()
    yield lambda: time.perf_counter() - start
