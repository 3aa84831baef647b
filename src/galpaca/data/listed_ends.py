"""Tokens that end an answer according to a model's generation settings: some models list more than their ``eos``."""

import json
from pathlib import Path
from typing import Any

from galpaca.errors import InputError, first_line

GENERATION_FILE = "generation_config.json"


def generation_settings(path: str) -> Path | None:
    """The ``generation_config.json`` beside a tokenizer; None where the model has none.

    Raises:
        InputError: the Hub does not answer, so it is unknown.
    """
    if Path(path).is_dir():
        file = Path(path) / GENERATION_FILE
        return file if file.is_file() else None
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(path, GENERATION_FILE)  # of the commit that the tokenizer is of
    if cached is not None:
        return Path(cached) if isinstance(cached, str) else None  # an earlier request found none
    try:
        return Path(hf_hub_download(path, GENERATION_FILE))
    except LocalEntryNotFoundError as error:
        what = f"cannot find out which tokens end an answer: {first_line(error)}"
    except EntryNotFoundError:
        return None
    except Exception as error:  # no answer that one can read, and more
        what = f"cannot request the generation settings from the Hub: {first_line(error)}"
    raise InputError(
        what,
        where=path,
        why=f"models may list further ends of answers, and {GENERATION_FILE} is not in the cache",
        fix="run it once with network access, or use a folder with the model's files",
    )


def listed_ends(file: Path) -> tuple[int, ...]:
    """The ``eos_token_id`` of a ``generation_config.json``: one, several, or none.

    Raises:
        InputError: the file is damaged.
    """
    try:
        listed: Any = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        ends = listed if isinstance(listed, list) else [] if listed is None else [listed]
        if not all(isinstance(one, int) and 0 <= one < 2**31 for one in ends):
            raise ValueError(f"eos_token_id is no number: {listed!r}")
    except (OSError, ValueError, AttributeError) as error:
        what = f"cannot read the generation settings: {first_line(error)}"
        raise InputError(what, where=file, fix="mend or restore the file") from None
    return tuple(ends)
