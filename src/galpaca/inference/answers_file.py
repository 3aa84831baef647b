"""Answers on disk: appended as they are generated, resumable after a crash, finally sorted in prompt order.

Three files: ``OUT.settings.json`` has the settings, ``OUT.partial`` takes the answers line by line, and ``OUT`` is
there when all of them are, in the form that its name says.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from galpaca.errors import InputError, Problems
from galpaca.files.atomic import replace_file, sync_entry
from galpaca.files.disks import naming
from galpaca.inference.answer_formats import format_of
from galpaca.runs.lock import locked

_ANOTHER = "choose another --out; or delete it, its .settings.json and its .partial to start over"

Line = dict[str, Any]


class AnswersFile:
    """The answers of one set of prompts with one set of settings.

    Args:
        out: output file: JSON Lines, JSON, CSV or TSV.
        fields: keys that identify the answer of a line.

    Raises:
        InputError: as ``format_of``.
    """

    def __init__(self, out: Path, fields: Sequence[str]) -> None:
        self.out, self._fields = out, tuple(fields)
        self.partial = out.with_name(f"{out.name}.partial")
        self.settings = out.with_name(f"{out.name}.settings.json")
        self._format = format_of(out)
        self._lock = out.with_name(f".{out.name}.lock")
        self._lines: dict[tuple[Any, ...], Line] = {}

    @property
    def complete(self) -> bool:
        return self.out.exists()

    @property
    def lines(self) -> list[Line]:
        """All answers so far, in order."""
        return [self._lines[answer_id] for answer_id in sorted(self._lines)]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compares with the settings of answers that were started here, if any were.

        Args:
            settings: settings by name, or some of them.

        Raises:
            InputError: they were started with others; all of them at once. Or files of another origin are in the way.
        """
        if not self.out.absolute().parent.is_dir():
            raise InputError("no such folder", where=self.out.parent, fix="create it, or choose another --out")
        if not self.settings.exists():
            for path in (self.out, self.partial):
                if path.exists():
                    raise InputError(
                        "the file already exists, and how it was made is unknown",
                        where=path,
                        why="without its .settings.json it cannot be resumed",
                        fix="choose another --out, or delete the file",
                    )
            return
        before = self._earlier_settings()
        with Problems() as problems:
            for name in [name for name, value in settings.items() if before.get(name) != value]:
                problems.add(
                    f"{name} is {_shown(settings[name])}, but the answers were started with {_shown(before.get(name))}",
                    where=self.out,
                    fix=f"use the same value; or {_ANOTHER}",
                )

    def answered(self, fields: Sequence[Any]) -> bool:
        return tuple(fields) in self._lines

    @contextmanager
    def writing(self, settings: Mapping[str, Any], notes: Mapping[str, Any]) -> Iterator["AnswersFile"]:
        """Reads what is there and lets one process append.

        Args:
            settings: settings that a later run must have too.
            notes: what else is worth keeping with them.

        Raises:
            InputError: as ``check``, or another process is writing here.
        """
        with ExitStack() as stack:
            self.check(settings)
            try:
                stack.enter_context(locked(self._lock))
            except InputError as error:
                raise InputError(
                    "another process is writing these answers",
                    where=self.out,
                    why=error.why,
                    fix="wait for it, or choose another --out",
                ) from None
            stack.callback(self._lock.unlink, missing_ok=True)
            if not self.settings.exists():
                content = json.dumps({**settings, **notes}, indent=2, ensure_ascii=False, default=str)
                replace_file(self.settings, content + "\n")
            self._read()
            yield self

    def append(self, lines: Sequence[Line]) -> None:
        """Adds answers, which a crash after this call leaves on disk."""
        with naming(self.partial), self.partial.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        self._keep(lines)

    def finish(self) -> None:
        """Writes the file to be: all answers in order, whole or not at all."""
        replace_file(self.out, self._format(self.lines))
        sync_entry(self.out.absolute().parent)
        self.partial.unlink(missing_ok=True)

    def _keep(self, lines: Sequence[Line]) -> None:
        self._lines |= {tuple(line[field] for field in self._fields): line for line in lines}

    def _earlier_settings(self) -> dict[str, Any]:
        try:
            content = json.loads(self.settings.read_text(encoding="utf-8"))
            return dict(content)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"the file is damaged: {error}", where=self.settings, fix=_ANOTHER) from None

    def _read(self) -> None:
        if self.complete:
            self.partial.unlink(missing_ok=True)  # killed between the last two acts
            return
        if not self.partial.exists():
            return
        content = self.partial.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # killed in the middle of a line
            with self.partial.open("r+b") as file:
                file.truncate(len(whole))
        with Problems() as problems:
            for number, line in enumerate(whole.splitlines(), start=1):
                try:
                    self._keep([json.loads(line)])
                except (ValueError, KeyError, TypeError) as error:
                    problems.add(
                        f"not an answer: {error}", where=f"{self.partial}, line {number}", fix="remove the line"
                    )


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
