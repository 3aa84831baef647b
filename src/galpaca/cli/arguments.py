"""What the arguments of several commands have in common."""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

# Runs a command with the values of its arguments, by their names.
Run = Callable[..., None]


def optional_path(text: str) -> Path | None:
    """A path; an empty text, as of a variable that is not set, counts as none given."""
    return Path(text) if text else None


def add_overrides(command: ArgumentParser, example: str = "") -> None:
    words = f"configuration overrides as for train{example}"
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=words)


def add_fields(command: ArgumentParser, fields: str) -> None:
    words = f"column for {fields}, if named differently"
    command.add_argument("--field", dest="fields", action="append", default=[], metavar="FIELD=COLUMN", help=words)


def add_dtype(command: ArgumentParser) -> None:
    words = "dtype of the weights (default: the model's own on a GPU, float32 on a CPU)"
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help=words)


def add_batch_size(command: ArgumentParser, only: str = "") -> None:
    words = f"{only}prompts per batch (default: 16 on a GPU, 8 on a CPU)"
    command.add_argument("--batch-size", type=int, metavar="N", help=words)
