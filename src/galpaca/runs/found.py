"""Run folders by what a person names: a run, a checkpoint of one, or a folder with runs below it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from galpaca.runs.folder import step_of


def runs_below(path: Path) -> Iterator[Path]:
    """All run folders in a folder and below it, each once."""
    seen: set[str] = set()
    for name, folders, files in os.walk(path, followlinks=True):  # runs on scratch are often linked to
        if {"run.json", "run.lock"} & set(files):
            folders.clear()
            yield Path(name)
        is_new = (real := os.path.realpath(name)) not in seen
        seen.add(real)
        folders[:] = sorted(folder for folder in folders if not folder.startswith(".")) if is_new else []


def with_runs_below(paths: Sequence[Path]) -> list[Path]:
    """The same paths, a folder that is no run but has some below it replaced by these.

    Files beside runs are left out where there are runs: a shell puts them in for ``FOLDER/*``.
    """
    found: list[Path] = []
    for path in paths:
        is_run = (
            any((path / name).is_file() for name in ("run.json", "metrics.jsonl")) or step_of(path.name) is not None
        )
        below = [] if is_run or not path.is_dir() else list(runs_below(path))
        found += below or [path]
    folders = [path for path in dict.fromkeys(found) if not path.is_file()]
    return folders or found
