"""Where the model is that a person names, and the prompt template it brings; nothing heavy is loaded for that."""

from pathlib import Path

from galpaca.data.prompt_file import PROMPT_FILE
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


def prompt_folder(path: str) -> Path | None:
    """Where a model's ``galpaca.json`` is: in its folder, or downloaded from its repository on the Hub.

    Args:
        path: what ``find_model`` returned.

    Returns:
        None where the model brings none.

    Raises:
        InputError: the Hub does not answer, so it is unknown.
    """
    if Path(path).is_dir():
        return Path(path) if (Path(path) / PROMPT_FILE).is_file() else None
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(path, PROMPT_FILE)).parent
    except LocalEntryNotFoundError as error:
        if try_to_load_from_cache(path, PROMPT_FILE) is not None:  # an earlier request found none
            return None
        raise InputError(
            f"cannot find out whether the model has its own prompt template: {str(error).splitlines()[0]}",
            where=path,
            why=f"a model answers badly when it is prompted differently than in training, and its {PROMPT_FILE} is not "
            "in the cache",
            fix="run it once with network access, or download the repository and use its folder",
        ) from None
    except (EntryNotFoundError, RepositoryNotFoundError):  # the latter is reported along with the weights
        return None
    except Exception as error:  # no id, no answer that one can read, and more
        message = f"cannot request the model from the Hub: {str(error).splitlines()[0]}"
        raise InputError(message, where=path, fix=FOLDER_FIX) from None


def commit_of(path: str) -> str | None:
    """The commit of a model that was loaded from the Hub; None for a folder.

    Args:
        path: what ``find_model`` returned.
    """
    if Path(path).is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(path, "config.json")
    return Path(file).parent.name if isinstance(file, str) else None
