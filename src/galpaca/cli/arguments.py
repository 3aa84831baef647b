"""What the arguments of several commands have in common."""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from galpaca.app.options.names import ReadingOptions
    from galpaca.inference.settings import WeightOptions

# Runs a command with the values of its arguments, by their names.
Run = Callable[..., None]


def optional_path(text: str) -> Path | None:
    """A path; an empty text, as of a variable that is not set, counts as none given."""
    return Path(text) if text else None


def add_overrides(command: ArgumentParser, example: str = "") -> None:
    words = f"configuration overrides as for train{example}"
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=words)


def add_reading(command: ArgumentParser, fields: str) -> None:
    """How a file of records is read; ``take_reading`` collects it."""
    add = command.add_argument
    words = f"column for {fields}, if named differently; input=none for records without one"
    add("--field", dest="fields", action="append", default=[], metavar="FIELD=COLUMN", help=words)
    words = "column whose text is a sequence: COLUMN=SMILES, or I_SMILES, AMINO, DNA"
    add("--tag", dest="tags", action="append", default=[], metavar="COLUMN=KIND", help=words)
    words = "records whose input is null or absent: take it for empty (default), or refuse them"
    add("--on-missing-input", choices=("empty", "error"), default="empty", help=words)


def take_reading(options: dict[str, Any]) -> "ReadingOptions":
    """Takes the values of ``add_reading`` out of a command's options."""
    from galpaca.app.options.names import ReadingOptions

    return ReadingOptions(*(options.pop(name) for name in ("fields", "tags", "on_missing_input")))


def add_weights(command: ArgumentParser) -> None:
    """How weights are loaded; ``take_weights`` collects all but the dtype."""
    words = "dtype of the weights (default: the model's own on a GPU, float32 on a CPU)"
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help=words)
    words = "linear layers in 4 bits (NF4): for a model that is larger than the GPU"
    command.add_argument("--load-in-4bit", dest="four_bits", action="store_true", help=words)
    words = "of an adapter: folder of the model that it belongs to, if not where it says"
    command.add_argument("--base", type=optional_path, metavar="FOLDER", help=words)


def take_weights(options: dict[str, Any]) -> "WeightOptions":
    """Takes the values of ``add_weights``, but for the dtype, out of a command's options."""
    from galpaca.inference.settings import WeightOptions

    return WeightOptions(options.pop("four_bits"), options.pop("base"))


def add_batch_size(command: ArgumentParser, only: str = "") -> None:
    words = f"{only}prompts per batch (default: 16 on a GPU, 8 on a CPU)"
    command.add_argument("--batch-size", type=int, metavar="N", help=words)
