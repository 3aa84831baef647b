"""Where the model is that a person names; nothing heavy is loaded to tell."""

from pathlib import Path

from galpaca.errors import InputError
from galpaca.runs.folder import step_of

FOLDER_FIX = "a released folder (runs/NAME/model), a run folder, or a Hub id (OWNER/NAME)"


def find_model(name: str) -> str:
    """The folder or Hub id behind a name; of a run's folder, its model.

    Raises:
        InputError: no such folder, or one that holds no model.
    """
    path = Path(name)
    if not path.exists():
        if name.startswith(("/", ".", "~")) or name.count("/") > 1 or (path.parent.is_dir() and name.count("/") != 1):
            raise InputError("no such folder", where=name, fix=FOLDER_FIX)
        return name
    if not path.is_dir():
        raise InputError("expected a folder, found a file", where=name, fix=FOLDER_FIX)
    if (path / "run.json").is_file() and not (path / "config.json").is_file():
        if not (path / "model" / "config.json").is_file():
            raise InputError(
                "this run has no model yet",
                where=name,
                why="training writes it at the end",
                fix=f"galpaca export {name} FOLDER makes one from its newest checkpoint",
            )
        return str(path / "model")
    if step_of(path.resolve().name) is not None and path.resolve().parent.name == "checkpoints":
        raise InputError(
            "this is a checkpoint, not a model",
            where=name,
            fix=f"run galpaca export {name} FOLDER, then use FOLDER here",
        )
    if not (path / "config.json").is_file():
        raise InputError("the folder has no model: config.json is missing", where=name, fix=FOLDER_FIX)
    return name
