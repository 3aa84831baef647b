"""Errors that a person can act on: what is wrong, where, why, and how to fix it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from signal import SIGTERM
from typing import TypeVar

Found = TypeVar("Found")

SHOWN_PROBLEMS = 20

# What a number may have to be, as messages say it.
_RANGES: Mapping[str, Callable[[float], bool]] = {
    "> 0": lambda number: 0 < number < math.inf,
    "> 1": lambda number: 1 < number < math.inf,
    ">= 0": lambda number: 0 <= number < math.inf,
    "in [0, 1]": lambda number: 0 <= number <= 1,
    "in [0, 1)": lambda number: 0 <= number < 1,
    "in (0, 1]": lambda number: 0 < number <= 1,
    "at least 0": lambda number: number >= 0,
    "at least 1": lambda number: number >= 1,
    "at least 2": lambda number: number >= 2,
}


class GalpacaError(Exception):
    """A problem, stated so that the user can fix it.

    Args:
        what: the problem in one sentence.
        where: file and line, record number, configuration key, folder.
        why: what follows from it, or what was expected.
        fix: what to type or change.
    """

    exit_code = 1
    # Other ranks do not see this error; otherwise rank 0 reports it for all.
    of_one_rank = False

    def __init__(self, what: str, *, where: object = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.fix = what, str(where), why, fix

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        notes = {"why": self.why, "fix": self.fix}
        return "\n".join([head, *(f"  {label}: {text}" for label, text in notes.items() if text)])


class InputError(GalpacaError):
    """A user error: bad data, an invalid option, a missing folder."""

    exit_code = 2


class InputErrors(InputError):  # noqa: N818 - several errors in one
    """All problems found by one check; the first few are shown, all are counted.

    Problems that share a fix show it once, at the end.
    """

    def __init__(self, problems: Sequence[InputError], count: int | None = None) -> None:
        self.problems = tuple(problems)
        self.count = len(self.problems) if count is None else count
        super().__init__(f"{self.count} problem{'s' if self.count != 1 else ''}")

    def __str__(self) -> str:
        shown = self.problems[:SHOWN_PROBLEMS]
        fixes = {problem.fix for problem in shown if problem.fix}
        shared_fix = fixes.pop() if len(fixes) == 1 else ""
        lines = [f"{self.what}:"]
        for problem in shown:
            lines.append(f"{problem.where}: {problem.what}" if problem.where else problem.what)
            lines += [f"  why: {problem.why}"] if problem.why else []
            lines += [f"  fix: {problem.fix}"] if problem.fix and not shared_fix else []
        lines += [f"... and {self.count - len(shown)} more"] if self.count > len(shown) else []
        lines += [f"fix: {shared_fix}"] if shared_fix else []
        return "\n  ".join(lines)


class StoppedBySignal(BaseException):
    """A signal ended the run cleanly.

    Not an ``Exception``, so that code which wraps a library's errors lets it through.

    Args:
        message: says what was stopped.
        number: number of the signal; if ranks got several, the strongest.
        agreed: all ranks stop together, and the run is saved.
    """

    exit_code = 143

    def __init__(self, message: str, number: int = SIGTERM, *, agreed: bool = False) -> None:
        super().__init__(message)
        self.number = number
        self.agreed = agreed


@contextmanager
def restated(change: Callable[[InputError], InputError]) -> Iterator[None]:
    """Input errors that leave the context are said in other words, each of several by itself; also as a decorator."""
    try:
        yield
    except InputErrors as error:
        raise InputErrors([change(problem) for problem in error.problems], error.count) from None
    except InputError as error:
        raise change(error) from None


def first_line(error: BaseException) -> str:
    """Of what a library's error says, with the next line behind a colon; the error's type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


class Problems:
    """Collects problems so that all of them are reported at once."""

    def __init__(self) -> None:
        self._kept: list[InputError] = []
        self.count = 0

    def __enter__(self) -> "Problems":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises what was collected, if anything; what has been raised in the context stays as it is."""
        if kind is None:
            self.raise_any()

    def add(self, what: str, *, where: object = "", why: str = "", fix: str = "") -> None:
        self.count += 1
        if len(self._kept) < SHOWN_PROBLEMS:
            self._kept.append(InputError(what, where=where, why=why, fix=fix))

    def extend(self, errors: Iterable[InputError]) -> None:
        for error in errors:
            self.add(error.what, where=error.where, why=error.why, fix=error.fix)

    def collect(self, find: Callable[[], Found]) -> Found | None:
        """What ``find`` returns; None, and the problems more, where it raises input errors."""
        try:
            return find()
        except InputErrors as error:
            self.extend(error.problems)
            self.count += error.count - len(error.problems)  # it may have kept only the first of them
        except InputError as error:
            self.extend([error])
        return None

    def check_number(self, where: str, value: float | None, must_be: str, fix: str) -> None:
        """Adds a problem for a number that is not what it must be, such as ``> 0``; None is skipped."""
        if value is not None and not _RANGES[must_be](value):
            self.add(f"must be {must_be}, got {value}", where=where, fix=fix)

    def check_at_least_one(self, prefix: str, values: Mapping[str, int | None]) -> None:
        """Adds a problem for every count below 1; None is skipped.

        Args:
            prefix: of all names: ``--`` of options, or that of keys, such as ``batch.``.
        """
        for name, value in values.items():
            fix = f"{prefix}{name}{' ' if prefix == '--' else '='}1 or more"
            self.check_number(f"{prefix}{name}", value, "at least 1", fix)

    def check_choice(self, where: str, value: str | None, choices: Iterable[str]) -> None:
        """Adds a problem for a value that is none of the choices; None is skipped."""
        if value is not None and value not in choices:
            names = list(choices)
            what = f"must be one of {', '.join(names)}; got {value!r}"
            self.add(what, where=where, fix=f"{where}={' or '.join(names)}")

    def error(self) -> InputError | None:
        """The only problem, or all of them as ``InputErrors``; None if there is none."""
        if self.count > 1:
            return InputErrors(self._kept, self.count)
        return self._kept[0] if self.count else None

    def raise_any(self) -> None:
        """Raises what was collected, if anything.

        Raises:
            InputError: as ``error``.
        """
        if error := self.error():
            raise error
