"""``run.json``: what a run was made from, and its results."""

import json
import platform
import subprocess
import sys
import time
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from galpaca.errors import InputError
from galpaca.files.atomic import replace_file
from galpaca.runs.recipe import Recipe

_PACKAGES = ("galpaca", "torch", "lightning", "transformers", "tokenizers", "datasets", "numpy", "safetensors")


class RunRecord:
    """The content of ``run.json``, written whole after every change.

    Keys: ``id`` (also the W&B run's), ``created``, ``starts`` (one entry for each time the run was started),
    ``recipe`` and ``former_recipes`` (``galpaca.runs.recipe``), ``weights`` (which ones it began with), ``receipt``,
    ``plan``, ``release`` (what the model card tells beside these), ``final``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = _read(path) or {"id": uuid.uuid4().hex[:12], "created": _now()}
        self._recipe: Recipe | None = None

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

    @property
    def recipe(self) -> Recipe:
        """The run's recipe.

        Raises:
            InputError: none is recorded, or a later version has written it.
        """
        return self._recipe or self._read_recipe(self.content.get("recipe"))

    def take_recipe(self, recipe: Recipe, *, accept_changes: bool = False) -> list[str]:
        """Compares a recipe with the one that the run was started with, and makes it the run's.

        Args:
            accept_changes: accept differences.

        Returns:
            The differences, where they are accepted; the earlier recipe is kept beside the new one.

        Raises:
            InputError: they differ; every difference is shown.
        """
        differences = recipe.changes_since(self.recipe) if "recipe" in self.content else []
        if differences and not accept_changes:
            raise InputError(
                "the run was started with a different recipe or different data",
                where=self.path.parent,
                why="; ".join(differences),
                fix="start a new run with run.name=ANOTHER, restore the old values to resume this one, or accept the "
                "new values with run.accept_changes=true (recorded in run.json)",
            )
        if differences:
            self.content["former_recipes"] = [*self.content.get("former_recipes", []), self.content["recipe"]]
        self._recipe, self.content["recipe"] = recipe, recipe.to_json()
        return differences

    def had_recipe(self, recipe: Recipe) -> bool:
        """Whether a recipe is the run's, or was before a change that was accepted."""
        former = map(self._read_recipe, self.content.get("former_recipes", []))
        return not all(known.changes_since(recipe) for known in (self.recipe, *former))

    def _read_recipe(self, content: Any) -> Recipe:
        try:
            return Recipe.read(content)
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"cannot read the run's recipe: {error}",
                where=self.path,
                fix="resume the run with the version that wrote it, or start a new one with run.name=ANOTHER",
            ) from None


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
