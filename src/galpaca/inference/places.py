"""Where the model is that a person names; nothing heavy is loaded to tell."""

from pathlib import Path

from galpaca.errors import InputError
from galpaca.runs.folder import step_of

FOLDER_FIX = "a released folder (runs/NAME/model), a run's folder, or a name on the Hub (OWNER/NAME)"


def find_model(name: str) -> str:
    """The folder or Hub id behind a name; of a run's folder, its model.

    Raises:
        InputError: no such folder, or one that holds no model.
    """
    path = Path(name)
    if not path.exists():
        if name.startswith(("/", ".", "~")) or name.count("/") > 1 or (path.parent.is_dir() and name.count("/") != 1):
            raise InputError("there is no such folder", where=name, fix=FOLDER_FIX)
        return name
    if not path.is_dir():
        raise InputError("this is a file, not a folder", where=name, fix=FOLDER_FIX)
    if (path / "run.json").is_file() and not (path / "config.json").is_file():
        if not (path / "model" / "config.json").is_file():
            raise InputError(
                "this run has no model yet",
                where=name,
                why="training writes it at its end",
                fix=f"galpaca export {name} FOLDER makes one of its newest checkpoint",
            )
        return str(path / "model")
    if step_of(path.resolve().name) is not None and path.resolve().parent.name == "checkpoints":
        raise InputError(
            "this is a checkpoint, not a model",
            where=name,
            fix=f"galpaca export {name} FOLDER makes a model of it, and FOLDER is what to give here",
        )
    if not (path / "config.json").is_file():
        raise InputError("the folder holds no model: there is no config.json", where=name, fix=FOLDER_FIX)
    return name
