"""How a start ended that was signalled before its first step."""

from dataclasses import dataclass
from pathlib import Path

LEFT_SECONDS = 15.0


@dataclass(frozen=True)
class Outcome:
    """How one start ended.

    Attributes:
        to: one rank or all.
        seconds: from the command, or from the job's first task, to the signal.
        exit_code: of the launcher; of a job, as SLURM writes it, or that it was requeued.
        left: processes after 15 s.
        partial: files that were being written.
        again: how the same command ended afterwards: its exit code, or a job's state; 0 or empty for its end.
        wrong: what was not as it should be; empty if all was.
    """

    launcher: str
    signal: str
    to: str
    seconds: float
    exit_code: int | str | None
    left: int
    partial: int
    again: int | str
    wrong: str


def partial_files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if ".partial" in path.name]
