"""Saves evaluation results: one file each, and all of them in the model card."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from galpaca.errors import InputError
from galpaca.files.atomic import replace_file
from galpaca.release.evaluation import card_with_results

_FOLDER = "evaluation"


@dataclass(frozen=True)
class ResultsTarget:
    """Folder of the results, and the model card to update, if any."""

    folder: Path
    card: Path | None


def results_target(model: Path, out: Path | None) -> ResultsTarget:
    """The model's own folder, or ``out``; with ``out``, no card is updated.

    Raises:
        InputError: results cannot be written there.
    """
    if out is None and not model.is_dir():
        raise InputError(
            "no such folder, and results cannot be saved with a model on the Hub",
            where=model,
            fix="--out FOLDER for the results",
        )
    card = model / "README.md"
    target = ResultsTarget(out or model / _FOLDER, card if out is None and card.is_file() else None)
    above = next(folder for folder in (target.folder, *target.folder.absolute().parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError("cannot write results here", where=target.folder, fix="--out ANOTHER_FOLDER")
    return target


def keep_result(target: ResultsTarget, name: str, result: Mapping[str, Any], label: str, console: Console) -> None:
    """Writes a result, and adds all results to the card.

    Raises:
        InputError: it cannot be written, or an existing result is damaged.
    """
    try:
        target.folder.mkdir(parents=True, exist_ok=True)
        _write(target, name, result, label)
    except OSError as error:
        raise InputError(
            f"cannot write the result: {error.strerror or error}", where=target.folder, fix="--out ANOTHER_FOLDER"
        ) from None
    console.print(f"saved to {target.folder / name}", markup=False)


def _write(target: ResultsTarget, name: str, result: Mapping[str, Any], label: str) -> None:
    replace_file(target.folder / name, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    if target.card is None:
        return
    results = [_read(path) for path in sorted(target.folder.glob("*.json"))]
    replace_file(target.card, card_with_results(target.card.read_text(encoding="utf-8"), label, results))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] not in ("records", "tasks") or not isinstance(content["rows"], list):
            raise ValueError("not a result of galpaca evaluate")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the file is damaged: {error}", where=path, fix="delete it and evaluate again") from None
    return dict(content)
