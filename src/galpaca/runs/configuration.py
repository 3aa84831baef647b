"""``config.yaml``: the configuration of a run's newest start, as its reader finds it."""

from pathlib import Path
from typing import Any

import yaml

from galpaca.errors import InputError, first_line


def read_configuration(path: Path) -> dict[str, Any]:
    """The content of a ``config.yaml``; empty where there is no such file, as in a run that has not started.

    Raises:
        InputError: it is damaged.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise damaged(path, first_line(error)) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise damaged(path, "it is no mapping of groups")
    return content


def damaged(path: Path, why: str) -> InputError:
    return InputError(
        "the configuration of the run cannot be read",
        where=path,
        why=why,
        fix="restore the file; rerunning the command that started the run writes it as well",
    )
