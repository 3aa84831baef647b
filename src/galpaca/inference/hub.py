"""Files of models that are in a folder or on the Hub."""

from pathlib import Path

from galpaca.data.prompt_file import PROMPT_FILE
from galpaca.errors import InputError

FOLDER_FIX = (
    "a released folder (runs/NAME/model), an adapter's (runs/NAME/adapter), a run folder, a step of it that is saved "
    "(runs/NAME@STEP), or a Hub id (OWNER/NAME)"
)


def prompt_folder(path: str) -> Path | None:
    """Where a model's ``galpaca.json`` is: in its folder, or downloaded from its repository on the Hub.

    Args:
        path: ``Place.path``.

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


def downloaded(name: str, revision: str | None = None) -> Path:
    """A folder, or that of a name on the Hub; weights and configuration are downloaded if they are not there.

    Raises:
        Exception: of many kinds, where there is no such name, or no network.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=["*.safetensors", "*.json"]))


def commit_of(path: str) -> str | None:
    """The commit of a model that was loaded from the Hub; None for a folder.

    Args:
        path: ``Place.path``.
    """
    if Path(path).is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(path, "config.json")
    return Path(file).parent.name if isinstance(file, str) else None
