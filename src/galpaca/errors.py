"""Errors that a person can act on: what is wrong, where, why, and how to fix it."""

from collections.abc import Iterable, Sequence

SHOWN_PROBLEMS = 20


class GalpacaError(Exception):
    """One problem, told so that its reader can fix it.

    Args:
        what: the problem in one sentence.
        where: file and line, record number, configuration key, folder.
        why: what follows from it, or what was expected.
        fix: what to type or change.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: object = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.fix = what, str(where), why, fix

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return "\n".join([head, *(f"  {label}: {text}" for label, text in self._notes() if text)])

    def _notes(self) -> Sequence[tuple[str, str]]:
        return ("why", self.why), ("fix", self.fix)


class InputError(GalpacaError):
    """The user's mistake: bad data, a bad option, a folder that is not there."""

    exit_code = 2


class InputErrors(InputError):  # noqa: N818 - several errors, told as one
    """All the problems found at one door, the first few shown and all of them counted.

    Problems that share a fix show it once, at the end.
    """

    def __init__(self, problems: Sequence[InputError], count: int | None = None) -> None:
        self.problems = tuple(problems)
        self.count = len(self.problems) if count is None else count
        super().__init__(f"{self.count} problem{'s' if self.count != 1 else ''}")

    def __str__(self) -> str:
        shown = self.problems[:SHOWN_PROBLEMS]
        hidden = self.count - len(shown)
        fixes = {problem.fix: None for problem in shown if problem.fix}
        if len(fixes) > 1:
            return "\n".join([*map(str, shown), *([f"... and {hidden} more"] if hidden else [])])
        lines = [f"{self.what}:"]
        for problem in shown:
            lines.append(f"  {problem.where}: {problem.what}" if problem.where else f"  {problem.what}")
            lines += [f"    why: {problem.why}"] if problem.why else []
        lines += [f"  ... and {hidden} more"] if hidden else []
        return "\n".join([*lines, *(f"  fix: {fix}" for fix in fixes)])


class StoppedBySignal(BaseException):
    """SIGTERM or Ctrl-C ended the run in good order.

    No ``Exception``: code that turns a library's errors into its own must let it through.
    """

    exit_code = 143


class Problems:
    """Collects problems so that all of them are told at once."""

    def __init__(self) -> None:
        self._kept: list[InputError] = []
        self.count = 0

    def add(self, what: str, *, where: object = "", why: str = "", fix: str = "") -> None:
        self.count += 1
        if len(self._kept) < SHOWN_PROBLEMS:
            self._kept.append(InputError(what, where=where, why=why, fix=fix))

    def extend(self, errors: Iterable[InputError]) -> None:
        for error in errors:
            self.add(error.what, where=error.where, why=error.why, fix=error.fix)

    def raise_any(self) -> None:
        """Raises:
        InputError: the problem, if there is one; all of them as ``InputErrors`` if there are more.
        """
        if self.count == 1:
            raise self._kept[0]
        if self.count:
            raise InputErrors(self._kept, self.count)
