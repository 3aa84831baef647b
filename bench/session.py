"""One measurement after the other: what fails or is left out is kept with its reason, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.results import save

OUT_OF_TIME = "no time left"


class OutOfTimeError(RuntimeError):
    """A measurement that was cut off: nothing is said of what it measures."""


class Session:
    """Runs measurements within a time, and keeps what they find on disk after each.

    Args:
        minutes: after which nothing new is started.
        out: folder of results.
        name: of the file there.
        program: the benchmark that was typed.
    """

    def __init__(self, minutes: float, out: Path, name: str, *, program: str) -> None:
        self.out, self.name, self.program = out, name, program
        self.failures: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._begin, self._seconds = time.monotonic(), minutes * 60

    @property
    def seconds_left(self) -> float:
        return self._begin + self._seconds - time.monotonic()

    def run(
        self,
        name: str,
        measure: Callable[[], dict[str, Any]],
        place: Any,
        key: str | None = None,
        *,
        lack: str | None = None,
    ) -> None:
        """One measurement. One whose ``passed`` is false has failed.

        Args:
            place: a list that gets what was found, or a mapping that gets it, under ``key`` if there is one.
            lack: why it cannot be made.
        """
        begin = time.monotonic()
        if lack or self.seconds_left < 0:
            return self._keep(self.left_out, name, lack or OUT_OF_TIME)
        try:
            found = measure()
        except OutOfTimeError as error:
            return self._keep(self.left_out, name, f"cut off: {error}")
        except Exception as error:  # whatever it was, the next measurement may do
            return self._keep(self.failures, name, f"{type(error).__name__}: {error}")
        if isinstance(place, list):
            place.append(found)
        elif key is not None:
            place[key] = found
        else:
            place.update(found)
        if found.get("passed") is False:
            self.failures[name] = f"{found}"[:2_000]
        print(f"{name}: {_short(found)} ({time.monotonic() - begin:.0f} s)", flush=True)
        self.save()  # a run that is cut off keeps what it found

    def _keep(self, place: dict[str, str], name: str, why: str) -> None:
        place[name] = why[:2_000]
        print(f"{name}: {'FAILED' if place is self.failures else 'left out'}, {place[name]}", flush=True)
        self.save()

    def save(self) -> Path:
        return save(self.name, self.figures(), self.out, program=self.program)

    def figures(self) -> dict[str, Any]:
        """What the file says."""
        seconds = self._seconds - self.seconds_left
        return {"failures": self.failures, "left_out": self.left_out, "seconds": round(seconds, 1)}

    def problems(self) -> list[str]:
        """A line for each thing that failed or was left out."""
        failed = [f"failed: {name}" for name in self.failures]
        return failed + [f"left out: {name}: {why}" for name, why in self.left_out.items()]


def _short(found: dict[str, Any]) -> str:
    parts = []
    for key, value in found.items():
        if isinstance(value, float):
            parts.append(f"{key} {value:.4g}")
        elif isinstance(value, int):
            parts.append(f"{key} {value}")
    return ", ".join(parts)
