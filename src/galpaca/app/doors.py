"""How commands begin and end: composition by Hydra, errors as text, exit codes."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from galpaca.app.ranks import global_rank, is_launched_child
from galpaca.errors import GalpacaError, InputError, StoppedBySignal

if TYPE_CHECKING:
    from omegaconf import DictConfig


def guarded(command: Callable[[], object]) -> int:
    """Runs a command and turns what it raises into a message and an exit code.

    Returns:
        0 done, 2 the user's mistake, 143 stopped by a signal, 1 anything else that ``galpaca`` foresees.
    """
    try:
        command()
    except GalpacaError as error:
        if global_rank() == 0:  # every rank sees the same
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except StoppedBySignal as stop:
        if global_rank() == 0:
            print(str(stop), file=sys.stderr)
        # Lightning's launcher watches its children and would kill this run for any other code.
        return 0 if is_launched_child() else stop.exit_code
    except BrokenPipeError:
        return 1
    return 0


def train_with_hydra() -> int:
    """``train.py``: Hydra reads the command line, composes, and calls ``train``."""
    return guarded(_hydra)


def _hydra() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its errors itself and exits with 1
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from galpaca.app.config import config_folder, register

    register()

    ended_by: list[BaseException] = []

    def task(node: DictConfig) -> None:
        try:
            _train(node)
        except BaseException as reason:  # through Hydra it would gain a preface and twenty frames of hers
            ended_by.append(reason)

    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise _config_error(error) from None
    for reason in ended_by:
        raise reason


def _train(node: DictConfig) -> None:
    from galpaca.app.config import resolve

    config, resolved_yaml = resolve(node)
    from galpaca.app.train import train  # heavy: after the checks that need none of it

    train(config, resolved_yaml)


def _config_error(error: Exception) -> InputError:
    """Hydra's message, with what is known of the mistake."""
    text = str(error).strip()
    lines = text.splitlines() or [type(error).__name__]
    if match := re.match(r"Could not override '([^']+)'", lines[0]):
        key = match.group(1)
        return InputError("unknown configuration key", where=key, fix=_near_key(key))
    if match := re.match(r"In '[^']*': Could not find '([^']+)'", lines[0]):
        group, _, name = match.group(1).rpartition("/")
        return InputError(f"there is no {name!r} in the group {group!r}", where="configuration", fix=_options(lines))
    if match := re.match(r"Could not override '([^']+)'\.?", lines[0]):
        return InputError(lines[0], where=match.group(1), fix=_options(lines))
    rest = " ".join(line.strip() for line in lines[1:])
    return InputError(lines[0], where="configuration", fix=rest or "see python train.py --help")


def _options(lines: list[str]) -> str:
    options = [line.strip() for line in lines[1:] if line.strip() and "Config search path" not in line]
    return " ".join(options[: next((i for i, o in enumerate(options) if "provider=" in o), None)]) or "see --help"


def _near_key(key: str) -> str:
    import hydra

    from galpaca.app.config import config_folder, keys_of

    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        known = sorted(keys_of(hydra.compose("train", overrides=["+experiment=demo"])))
    near = difflib.get_close_matches(key, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "python train.py --cfg job shows all keys"
