"""Writes tests/surface/surface.txt: every command, option, configuration key and file of a group that a user may type.

    python scripts/make_surface.py

tests/surface/test_surface.py fails when the file is not what this script writes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import OmegaConf

from galpaca.app.config.schema import Config, config_folder
from galpaca.app.config.targets import own_fields
from galpaca.cli import _parser
from galpaca.cli.arguments import optional_path

FILE = Path(__file__).resolve().parents[1] / "tests" / "surface" / "surface.txt"

_HEAD = """\
# What a user may type: commands, options, configuration keys and the files of each group, with types and defaults.
# Written by `make surface`. A change in here is a change for every script that calls galpaca: make it on purpose.
"""


def main() -> None:
    FILE.write_text(surface(), encoding="utf-8")


def surface() -> str:
    """The whole file."""
    return "\n".join([_HEAD, *_commands(), "", *_keys(), "", *_targets(), "", *_groups(), ""])


def _commands() -> Iterator[str]:
    yield "## Commands"
    (commands,) = [action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)]
    for name, command in sorted(commands.choices.items()):
        yield ""
        options = [action for action in command._actions if not isinstance(action, argparse._HelpAction)]
        yield " ".join(["galpaca", name, *(_positional(action) for action in options if not action.option_strings)])
        for action in sorted(options, key=lambda action: action.option_strings):
            if action.option_strings:
                yield f"    {_option(action)}"


def _positional(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest)
    return {"+": f"{name}...", "*": f"[{name}...]", "?": f"[{name}]"}.get(str(action.nargs), name)


def _option(action: argparse.Action) -> str:
    words = [", ".join(action.option_strings)]
    if action.nargs != 0:
        kind = "str" if action.type in (Path, optional_path) else getattr(action.type, "__name__", "str")
        words.append(" | ".join(map(str, action.choices)) if action.choices else kind)
    if isinstance(action, argparse._AppendAction):
        words.append("repeatable")
    words.append("required" if action.required else f"default {_value(action.default)}")
    return f"{words[0]}: {', '.join(words[1:])}"


def _keys() -> Iterator[str]:
    yield "## Configuration keys"
    yield ""
    for section, kind in get_type_hints(Config).items():
        if isinstance(kind, type) and is_dataclass(kind):
            types = get_type_hints(kind)
            for item in own_fields(kind):
                yield from _key(f"{section}.{item.name}", item, types[item.name])
        elif kind is int:
            yield f"{section}: int = {getattr(Config, section)}"


def _key(name: str, item: Field[Any], kind: Any) -> Iterator[str]:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    if isinstance(default, dict):
        yield from (f"{name}.{key}: {_type(get_args(kind)[1])} = {_value(value)}" for key, value in default.items())
    elif default is MISSING:
        yield f"{name}: {_type(kind)}, required"
    else:
        yield f"{name}: {_type(kind)} = {_value(default)}"


def _type(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _targets() -> Iterator[str]:
    """Keys that only the files which name a function, and its arguments, bring along."""
    yield "## Keys of what is chosen by a file"
    for path in sorted(config_folder().glob("*/*.yaml")):
        values = _read(path)
        if "_target_" in path.read_text(encoding="utf-8") and "defaults" not in values:
            yield ""
            yield f"{path.parent.name}={path.stem}"
            yield from (f"    {line}" for line in _lines(path.parent.name, values))


def _lines(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lines(f"{name}.{key}", inner)
    else:
        yield f"{name} = {_value(value)}"


def _groups() -> Iterator[str]:
    yield "## Files of each group; a star marks the one that a run takes if none is chosen"
    yield ""
    entries = _read(config_folder() / "train.yaml")["defaults"]
    defaults = {item for entry in entries if isinstance(entry, dict) for item in entry.items()}
    for folder in sorted(path for path in config_folder().iterdir() if path.is_dir()):
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        marked = [f"{name}*" if (folder.name, name) in defaults else name for name in names]
        yield f"{folder.name}: {' '.join(marked)}"


def _read(path: Path) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)  # type: ignore[return-value]


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


if __name__ == "__main__":
    main()
