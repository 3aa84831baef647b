"""Where the model is that a person names; nothing heavy is loaded to find it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from galpaca.errors import InputError
from galpaca.inference.hub import FOLDER_FIX
from galpaca.runs.checkpoints import best_saved_step
from galpaca.runs.folder import RunFolder, step_of

if TYPE_CHECKING:
    from galpaca.inference.opened_weights import OpenedWeights


@dataclass(frozen=True)
class Place:
    """A folder, or a name on the Hub, that holds a whole model.

    Attributes:
        name: as a person named it.
        path: folder or Hub id of its tokenizer and prompt template.
    """

    name: str
    path: str

    @property
    def home(self) -> Path | None:
        """Where what is found out about the model is kept; None where there is no such folder."""
        return Path(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """Folders with the files of its weights."""
        return (Path(self.path),)

    def opened(self, base: Path | None) -> OpenedWeights | None:
        """Its weights as training reads them; None where ``transformers`` has to.

        Args:
            base: folder of the model that an adapter belongs to, in the place of the one that it names.

        Raises:
            InputError: they are missing, damaged or of another model.
        """
        return None


@dataclass(frozen=True)
class AdapterPlace(Place):
    """The folder of an adapter."""

    def opened(self, base: Path | None) -> OpenedWeights | None:
        from galpaca.inference.opened_weights import of_adapter

        return of_adapter(Path(self.path), base)


@dataclass(frozen=True)
class CheckpointPlace(Place):
    """A checkpoint of a run."""

    run: RunFolder
    step: int

    @property
    def home(self) -> Path | None:
        return None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.run.checkpoint(self.step),)

    def opened(self, base: Path | None) -> OpenedWeights | None:
        from galpaca.inference.opened_weights import of_checkpoint

        return of_checkpoint(self.run, self.step, base)


def find_model(name: str) -> Place:
    """The place behind a name; of a run's folder, its model, or its adapter where it has no other.

    Raises:
        InputError: no such folder, or one that holds no model.
    """
    path = Path(name)
    if not path.exists():
        if (run := _run_at_step(name)) is not None:
            return _checkpoint(name, *run)
        if name.startswith(("/", ".", "~")) or name.count("/") > 1 or (path.parent.is_dir() and name.count("/") != 1):
            raise InputError("no such folder", where=name, fix=FOLDER_FIX)
        return Place(name, name)
    if not path.is_dir():
        raise InputError("expected a folder, found a file", where=name, fix=FOLDER_FIX)
    if (path / "run.json").is_file() and not (path / "config.json").is_file():
        return _of_run(name, path)
    if step_of(path.resolve().name) is not None and path.resolve().parent.name == "checkpoints":
        run_path, step = path.resolve().parents[1], step_of(path.resolve().name)
        raise InputError(
            "this is a checkpoint, not a model",
            where=name,
            fix=f"use {run_path}@{step} here, or galpaca export {name} FOLDER to get a folder",
        )
    is_adapter = any((path / file).is_file() for file in ("adapter_config.json", "adapter_model.safetensors"))
    if is_adapter and (path / "config.json").is_file():
        raise InputError(
            "the folder has an adapter beside a whole model",
            where=name,
            why="transformers loads the adapter onto another model, and not the weights that lie there",
            fix="move adapter_config.json and adapter_model.safetensors to a folder of their own",
        )
    if is_adapter:
        return AdapterPlace(name, name)
    if not (path / "config.json").is_file():
        raise InputError("the folder has no model: config.json is missing", where=name, fix=FOLDER_FIX)
    return Place(name, name)


def _of_run(name: str, path: Path) -> Place:
    if (path / "model" / "config.json").is_file():
        return Place(name, str(path / "model"))
    if (path / "adapter" / "adapter_config.json").is_file():
        run = RunFolder(path.parent, path.name)
        return _checkpoint(name, run, run.last_saved_step())
    raise InputError(
        "this run has no model yet",
        where=name,
        why="training writes it at the end",
        fix=f"{name}@STEP for a checkpoint's, or galpaca export {name} FOLDER makes one from the newest",
    )


def checkpoint_of_name(name: str) -> Path:
    """The folder of a checkpoint that is named ``RUN@STEP``; any other name as it is.

    Raises:
        InputError: no such step is saved.
    """
    run = None if Path(name).exists() else _run_at_step(name)
    return Path(name) if run is None else _checkpoint(name, *run).files[0]


def run_of_name(name: str) -> Path:
    """The folder of a name that may have a step, ``runs/mine@200``."""
    run = None if Path(name).exists() else _run_at_step(name)
    return Path(name) if run is None else run[0].path


def _run_at_step(name: str) -> tuple[RunFolder, int] | None:
    """The run and step of ``RUN@STEP``, where the step may be ``best`` or ``last``; None for any other name."""
    found = re.fullmatch(r"(.+)@(\d+|best|last)", name)
    path = Path(found[1]) if found else None
    if found is None or path is None or not (path / "run.json").is_file():
        return None
    resolved = path.resolve()
    run = RunFolder(resolved.parent, resolved.name)
    if found[2].isdigit():
        return run, int(found[2])
    best = best_saved_step(run) if found[2] == "best" else run.last_saved_step()
    if best is None:
        raise InputError("no saved step was validated", where=name, fix=f"{path}@last, or {path}@STEP")
    return run, best


def _checkpoint(name: str, run: RunFolder, step: int) -> CheckpointPlace:
    saved = run.saved_steps()
    if step not in saved:
        steps = ", ".join(map(str, saved)) or "none"
        raise InputError(
            f"step {step} is not saved", where=run.path, why=f"saved steps: {steps}", fix="name one of these"
        )
    return CheckpointPlace(name, str(run.base), run, step)
