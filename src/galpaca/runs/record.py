"""``run.json``: what a run was made from, and its results."""

import json
import platform
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from galpaca.errors import InputError
from galpaca.files.atomic import replace_file

_PACKAGES = ("galpaca", "torch", "lightning", "transformers", "tokenizers", "datasets", "numpy", "safetensors")


class RunRecord:
    """The content of ``run.json``, written whole after every change.

    Keys: ``id`` (also the W&B run's), ``created``, ``starts`` (one entry for each time the run was started),
    ``recipe`` (what must not change on resume), ``weights`` (which ones it began with), ``receipt``,
    ``plan``, ``release`` (what the model card tells beside these), ``final``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = _read(path) or {"id": uuid.uuid4().hex[:12], "created": _now()}

    @property
    def id(self) -> str:
        return str(self.content["id"])

    def update(self, **entries: Any) -> None:
        self.content.update(entries)
        replace_file(self.path, json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")

    def add_start(self, **facts: Any) -> None:
        self.update(starts=[*self.content.get("starts", []), {"time": _now(), **facts}])

    def add_seconds(self, **seconds: float) -> None:
        """Adds durations of phases to the newest start."""
        start = self.content["starts"][-1]
        start["seconds"] = {**start.get("seconds", {}), **{name: round(value, 2) for name, value in seconds.items()}}
        self.update()

    def end_start(self, how: str, why: str) -> None:
        """Records how the last start ended: ``complete``, ``stopped`` or ``failed``. A killed run records nothing."""
        starts = self.content.get("starts", [])
        if starts:
            starts[-1]["ended"] = {"time": _now(), "how": how, "why": why}
            self.update(starts=starts)

    def check_recipe(self, recipe: Mapping[str, Any], *, accept_changes: bool = False) -> list[str]:
        """Compares a recipe with the one that the run was started with.

        Args:
            accept_changes: accept differences.

        Returns:
            The differences, where they are accepted.

        Raises:
            InputError: they differ; every difference is shown.
        """
        begun = self.content.get("recipe")
        if begun is None:
            return []
        differences = recipe_differences(begun, recipe)
        if differences and not accept_changes:
            raise InputError(
                "the run was started with a different recipe or different data",
                where=self.path.parent,
                why="; ".join(differences),
                fix="start a new run with run.name=ANOTHER, restore the old values to resume this one, or accept the "
                "new values with run.accept_changes=true (recorded in run.json)",
            )
        return differences


def recipe_differences(begun: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Every key whose value differs, with both values."""
    asked = json.loads(json.dumps(asked))  # as it would be read back
    return [
        f"{key}: {_short(begun.get(key, 'absent'))} -> {_short(asked.get(key, 'absent'))}"
        for key in sorted(begun.keys() | asked.keys())
        if begun.get(key) != asked.get(key)
    ]


def _short(value: Any) -> str:
    """Shortens fingerprints: their first digits suffice to tell them apart."""
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the source checkout and whether it has changes; None if it is not a checkout."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def processor_name() -> str:
    """Model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def command_line() -> list[str]:
    return [sys.executable, *sys.argv]


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"invalid JSON: {error}", where=path, fix="restore the file, or run.name=ANOTHER") from None
    if not isinstance(content, dict):
        raise InputError("not a JSON object", where=path, fix="restore the file, or run.name=ANOTHER")
    return content
