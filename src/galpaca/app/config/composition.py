"""From overrides to a configuration: Hydra composes; an unknown key or a wrong type is an error at the door."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from galpaca.app.config.habits import check_arguments
from galpaca.app.config.messages import COMPOSITION_ERRORS, config_error, fix_of_other_name
from galpaca.app.config.schema import Config, config_folder
from galpaca.app.config.targets import TARGET_KEY, own_fields, target_class, target_field
from galpaca.errors import InputError, Problems

# Mappings whose keys a person makes up, such as names of columns.
OPEN_MAPPINGS = (("data", "tags"), ("data", "mix"))

_REQUIRED = [item.name for item in fields(Config) if item.default is MISSING and item.default_factory is MISSING]
_SECTIONS: Mapping[str, Any] = {name: kind for name, kind in get_type_hints(Config).items() if is_dataclass(kind)}


def register() -> None:
    """Registers every configuration key with Hydra, with the defaults of its record, under the name ``every_key``.

    So each can be overridden without a plus, and the files in ``conf/`` contain only what they change.
    ``${galpaca:FILE}`` in them is a file of the installed package, ``${conf:FILE}`` one of ``conf/``,
    ``${of_hub:FACT}`` what holds for the data set of the Hub beside it, and not for records that ``path`` puts in its
    place; ``${of_file:FILE,FACT}`` what holds while ``path`` is a file of the package, and ``${of_model:ID,FACT}`` what
    holds while it is a model of the Hub or a folder of the same name.
    """
    every_key: dict[str, Any] = {name: _defaults(section) for name, section in _SECTIONS.items()}
    node = OmegaConf.create({**every_key, "callbacks": {}, "seed": Config.seed})
    for group, key in OPEN_MAPPINGS:
        OmegaConf.set_struct(node[group][key], False)
    ConfigStore.instance().store("every_key", node)
    package = Path(str(resources.files("galpaca")))
    OmegaConf.register_new_resolver("galpaca", lambda name: str(package / name), replace=True)
    OmegaConf.register_new_resolver("conf", lambda name: str(config_folder() / name), replace=True)
    OmegaConf.register_new_resolver("of_hub", _of_hub, replace=True)
    OmegaConf.register_new_resolver("of_model", _of_model, replace=True)
    OmegaConf.register_new_resolver("of_file", partial(_of_file, package), replace=True)


def _of_file(package: Path, file: str, fact: Any, *, _parent_: DictConfig) -> Any:
    return fact if _parent_.get("path") == str(package / file) else None


def _of_model(hub_id: str, fact: Any, *, _parent_: DictConfig) -> Any:
    """Another model has another license, and a copy in a folder that is called like it has the same."""
    names = (Path(str(one)).name.lower() for one in (_parent_.get("path"), hub_id))
    return fact if len(set(names)) == 1 else None


def _of_hub(fact: Any, *, _parent_: DictConfig) -> Any:
    return None if _parent_.get("path") else fact


def _defaults(section: type) -> dict[str, Any]:
    """Those of a record's own keys. The keys of a target are in the file that names it."""
    values: Any = OmegaConf.to_container(OmegaConf.structured(section))
    return {item.name: values[item.name] for item in own_fields(section)}


def compose(overrides: Sequence[str]) -> tuple[Config, str]:
    """Composes the configuration as ``train.py`` would, and returns it with its YAML.

    Raises:
        InputError: as ``parse``.
    """
    register()
    check_arguments(overrides)
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            node = hydra.compose("train", overrides=with_home(overrides))
    except COMPOSITION_ERRORS as error:
        raise all_problems(error, overrides) from None
    return resolve(node)


def all_problems(error: Exception, overrides: Sequence[str]) -> InputError:
    """What Hydra stopped at while composing, and what is wrong with the other overrides."""
    first = config_error(error, overrides)
    wrong = {problem.where for problem in getattr(first, "problems", (first,))}
    others = [one for one in overrides if one.lstrip("+~").partition("=")[0] not in wrong]
    if len(others) == len(overrides):
        return first
    problems = Problems()
    problems.extend(getattr(first, "problems", (first,)))
    problems.collect(partial(compose, others))
    return problems.error() or first


def with_home(overrides: Sequence[str]) -> list[str]:
    """Overrides with the home folder for ``~/``: no shell puts it there behind an equals sign, and to Hydra it is no
    value.
    """
    home = f"{Path.home()}/"
    return [
        re.sub(r"(?<=[=\[,{:])( *)~/", lambda found: found[1] + home, one) if "=" in one else one for one in overrides
    ]


def resolve(node: DictConfig) -> tuple[Config, str]:
    """The configuration behind a composed node, interpolations resolved, and the same as YAML.

    Raises:
        InputError: an interpolation that does not resolve, or as ``parse``.
    """
    try:
        OmegaConf.to_container(node, resolve=True)  # its errors know the key, those of resolve do not
        OmegaConf.resolve(node)
        _expand_home(node)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        fix = f"{key}=VALUE, or fix the ${{...}} in the file that sets it" if key else "fix the ${...}"
        raise InputError(str(error).splitlines()[0], where=key or "configuration", fix=fix) from None
    return parse(node), OmegaConf.to_yaml(node)


def completed_yaml(resolved_yaml: str, config: Config) -> str:
    """The YAML of a configuration in which what was left to the model's family is set."""
    node = OmegaConf.create(resolved_yaml)
    if node.model.dropout == config.model.dropout:
        return resolved_yaml
    node.model.dropout = config.model.dropout
    return OmegaConf.to_yaml(node)


def _expand_home(node: Any) -> None:
    """A value that begins with ``~/`` is a path in the home folder: no shell expands it behind an equals sign."""
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_missing(node, key):
            continue
        if OmegaConf.is_config(node[key]):
            _expand_home(node[key])
        elif isinstance(node[key], str) and node[key].startswith("~/"):
            node[key] = str(Path(node[key]).expanduser())


def parse(node: DictConfig) -> Config:
    """The composed configuration as a ``Config``.

    Raises:
        InputError: unknown keys, missing or mistyped values; all at once.
    """
    with Problems() as problems:
        known = [item.name for item in fields(Config)]
        _check_keys(problems, node, known, "")
        sections: dict[str, Any] = {}
        for name in known:
            if OmegaConf.is_missing(node, name):
                problems.add("missing value", where=name, fix=f"{name}=VALUE")
            elif name == "seed" and name in node:
                sections[name] = _seed(problems, node[name])
            elif name in node:
                section, value = _SECTIONS.get(name), node[name]
                sections[name] = _parse_section(problems, name, value, section) if section else _plain(value)
            elif name in _REQUIRED:
                problems.add("the group is missing", where=name, fix=f"{name}=ONE_OF_ITS_FILES")
    return Config(**sections)


def _seed(problems: Problems, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        problems.add(f"must be an integer in [0, 2**63), got {value!r}", where="seed", fix=f"seed={Config.seed}")
    return value


def _parse_section(problems: Problems, name: str, node: Any, section: type) -> Any:
    if not isinstance(node, DictConfig):
        fix = f"{name}=ONE_OF_ITS_FILES or {name}.KEY=VALUE"
        problems.add(f"must be a config group, got {node!r}", where=name, fix=fix)
        return None
    before = problems.count
    target = target_field(section)
    further = target_class(problems, name, section, node.get(TARGET_KEY)) if target else None
    kinds = [section, further] if further else [section]
    if not target or further:
        known = [item.name for kind in kinds for item in own_fields(kind)]
        _check_keys(problems, node, [*known, *([TARGET_KEY] if target else [])], f"{name}.")
    made = [_made(problems, name, node, kind) for kind in reversed(kinds)]
    return None if problems.count > before else replace(made[-1], **{target.name: made[0]}) if target else made[0]


def _made(problems: Problems, name: str, node: DictConfig, section: type) -> Any:
    """A record from those keys of a group that are its own; None where it has problems."""
    before = problems.count
    for item in own_fields(section):
        is_required = item.default is MISSING and item.default_factory is MISSING
        if OmegaConf.is_missing(node, item.name) or (is_required and node.get(item.name) is None):
            problems.add("missing value", where=f"{name}.{item.name}", fix=f"{name}.{item.name}=VALUE")
    values = _typed(problems, name, node, section)
    if problems.count > before:
        return None
    try:
        return section(**values)
    except InputError as error:
        problems.extend(getattr(error, "problems", (error,)))
    except ValueError as error:  # of a target from elsewhere
        problems.add(str(error), where=name, fix=f"other values of {name}.{{{','.join(values)}}}")
    return None


def _typed(problems: Problems, name: str, node: DictConfig, section: type) -> dict[str, Any]:
    schema = OmegaConf.structured(section)
    OmegaConf.set_readonly(schema, False)  # a frozen dataclass is read-only to OmegaConf
    values = {}
    for item in own_fields(section):
        key = item.name
        if key not in node or OmegaConf.is_missing(node, key):
            continue
        value = _plain(node[key])
        try:
            schema[key] = value
            values[key] = _plain(schema[key])
        except OmegaConfBaseException:
            if value is None and item.default is MISSING:
                continue  # reported as missing
            where, default = f"{name}.{key}", item.default
            example = "" if default in (None, MISSING) else f", e.g. {where}={_as_override(default)}"
            problems.add(f"must be {_kind(item)}, got {value!r}", where=where, fix=f"{where}=VALUE{example}")
    return values


def _as_override(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(item: Field[Any]) -> str:
    """What a value of a field must be, in words."""
    name = getattr(item.type, "__name__", None) or str(item.type)
    return next((words for start, words in _KINDS.items() if name.startswith(start)), "a valid value")


_KINDS = {"int": "an integer", "float": "a number", "str": "a string", "bool": "true or false", "dict": "a mapping"}


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _check_keys(problems: Problems, node: DictConfig, known: Any, prefix: str) -> None:
    for key in (str(key) for key in node):
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1)
            fix = f"did you mean {prefix}{near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
            if (prefix, key) == ("", "experiment"):
                fix = 'start the experiment file with the line "# @package _global_"'
            where = f"{prefix}{key}"
            problems.add("unknown key", where=where, fix=fix_of_other_name(where, node[key]) or fix)
