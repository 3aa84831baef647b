"""Turns Hydra's errors into ours: the key or file, what is wrong with it, and the valid choices."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from galpaca.app.config.habits import fix_of_habit
from galpaca.app.config.schema import config_folder
from galpaca.errors import InputError, Problems
from galpaca.runs.recipe import RENAMED

# What composition raises for a person's mistake. ValueError: a number or null as the choice of a group.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)

_QUOTE = "quote values with characters other than letters, digits and _-./:+% , e.g. 'data.path=\"a, b.json\"'"


def config_error(error: Exception, overrides: Sequence[str]) -> InputError:
    """The error to show instead of what Hydra raised while composing ``overrides``."""
    if isinstance(error, yaml.YAMLError):
        return yaml_error(error)
    if isinstance(error, OverrideParseException):
        reason = str(error).splitlines()[1:2]
        return InputError("Hydra cannot parse this override", where=error.override, why="".join(reason), fix=_QUOTE)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if match := re.match(r"Ambiguous value for argument '(.+)'", lines[0]):
        return InputError("Hydra parses this value as a list of choices", where=match.group(1), fix=_QUOTE)
    if match := re.match(r"Could not override '([^']+)'", lines[0]):
        key = match.group(1)
        if key in _groups() and key != "experiment":  # that has no keys, and takes a plus
            what = "a config group takes one of its files, or its keys one by one"
            return InputError(what, where=key, fix=f"{key}=FILE or {key}.KEY=VALUE for each key")
        return _unknown_keys(key, overrides)
    if match := re.match(r"In '([^']*)': Could not override '([^']+)'", lines[0]):
        key, group = match.groups()
        return InputError(f"no config group {group!r} to override", where=key, fix=_near(group, _groups()))
    if match := re.match(r"In '([^']*)': Could not find '([^']+)'", lines[0]):
        key, choice = match.groups()
        group, _, name = choice.partition("/")
        where = group if key in ("train", "") else key
        return InputError(f"config group {group!r} has no {name!r}", where=where, fix=_choices(lines, group))
    if "group override must be" in lines[0]:
        return _no_choice(overrides)
    rest = " ".join(line.strip() for line in lines[1:])
    return InputError(lines[0], where="configuration", fix=rest or "see python train.py --help")


def yaml_error(error: yaml.YAMLError, path: object = "") -> InputError:
    """The error for a file that is not valid YAML, with its line."""
    mark = getattr(error, "problem_mark", None)
    where = f"{path or mark.name}, line {mark.line + 1}" if mark else str(path or "configuration")
    what = f"invalid YAML: {getattr(error, 'problem', None) or error}"
    return InputError(what, where=where, fix="fix the file there: indent with spaces, close brackets and quotes")


def _unknown_keys(first: str, overrides: Sequence[str]) -> InputError:
    """Hydra stops at the first unknown key; this reports all of them."""
    known = _known_keys(overrides)
    plain = [item for item in OverridesParser.create().parse_overrides(list(overrides)) if item.type.name == "CHANGE"]
    changed = [item.key_or_group for item in plain if not item.key_or_group.startswith("hydra.")]
    problems = Problems()
    for key in dict.fromkeys([first, *changed]):
        if key == first or (key not in known and key not in _groups()):
            value = next((one.partition("=")[2] for one in overrides if one.startswith(f"{key}=")), "NAME")
            fix = f"use +experiment={value}, with a plus" if key == "experiment" else _near(key, known)
            problems.add("unknown configuration key", where=key, fix=fix_of_other_name(key, value) or fix)
    error = problems.error()
    assert error is not None  # the first key is always reported
    return error


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Those of the files that overrides choose, and of the demo's where they choose none."""
    chosen = [one for one in overrides if one.lstrip("+").partition("=")[0] in _groups()]
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        for choices in (chosen, ["+experiment=demo", *chosen]):
            try:
                return sorted(_keys_of(hydra.compose("train", overrides=choices)))
            except COMPOSITION_ERRORS:  # no such file, or groups without one
                continue
        return sorted(_keys_of(hydra.compose("train", overrides=["+experiment=demo"])))


def fix_of_other_name(key: str, value: object) -> str:
    """What to type instead of a key's former name, or of one that other scripts have; empty for any other."""
    return f"it is called {RENAMED[key]} now: {RENAMED[key]}={value}" if key in RENAMED else fix_of_habit(key, value)


def _keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys below a node."""
    if isinstance(node, DictConfig):
        for key in map(str, node):
            yield prefix + key
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                yield from _keys_of(node[key], f"{prefix}{key}.")


def _no_choice(overrides: Sequence[str]) -> InputError:
    problems = Problems()
    for item in OverridesParser.create().parse_overrides(list(overrides)):
        group, value = item.key_or_group, item.value()
        if group in _groups() and not isinstance(value, str | list):
            names = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
            problems.add(f"config group {group!r} has no {value!r}", where=group, fix=f"{group}={' or '.join(names)}")
    what = "a config group takes the name of one of its files"
    return problems.error() or InputError(what, where="configuration", fix="see train.py --help")


def _groups() -> list[str]:
    return sorted(path.name for path in Path(config_folder()).iterdir() if path.is_dir())


def _choices(lines: list[str], group: str) -> str:
    options = [line.strip() for line in lines[1:] if line.startswith("\t")]
    names = [name for name in options if "provider=" not in name]
    return f"{'+' if group == 'experiment' else ''}{group}={' or '.join(names)}" if names else "see train.py --help"


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "python train.py --cfg job shows all keys"
