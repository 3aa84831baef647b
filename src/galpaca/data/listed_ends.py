"""Tokens that end an answer according to a model's generation settings: some models list more than their ``eos``."""

import json
from pathlib import Path
from typing import Any

from galpaca.errors import InputError, first_line


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
