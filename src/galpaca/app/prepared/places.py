"""What was prepared and where it is, and what to run next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from galpaca.formatting import format_bytes

_NEW, _WAS_THERE = "created", "already there, verified"


@dataclass(frozen=True)
class Place:
    """One thing that a run needs, its folder, and whether it was already there."""

    what: str
    folder: Path
    note: str

    def row(self) -> tuple[str, str]:
        num_bytes = sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        return self.what, f"{self.folder}, {format_bytes(num_bytes)} ({self.note})"


def since(*, is_new: bool) -> str:
    return _NEW if is_new else _WAS_THERE


def show_next(console: Console, commands: Sequence[str]) -> None:
    console.print("\nNext:")
    for command in commands:
        console.print(f"  {command}", markup=False)
