"""The class behind the ``_target_`` of a group whose further keys are the class's own."""

from dataclasses import Field, fields, is_dataclass
from typing import Any, get_type_hints

from hydra.utils import instantiate
from omegaconf import OmegaConf

from galpaca.errors import Problems

TARGET_KEY = "_target_"


def target_field(section: type) -> Field[Any] | None:
    """The field of a record that is made by a ``_target_``, if it has one."""
    return next((item for item in fields(section) if "target" in item.metadata), None)


def own_fields(section: type) -> list[Field[Any]]:
    """The fields of a record that are keys of its group whatever the target."""
    return [item for item in fields(section) if "target" not in item.metadata]


def target_class(problems: Problems, name: str, section: type, target: object) -> type | None:
    """The class that a group's ``_target_`` names; None, and a problem more, where it cannot be one.

    Args:
        name: the group's.
        section: the group's record.
        target: dotted path of the class; None for the record's default.
    """
    item = target_field(section)
    assert item is not None
    if target is None:
        return item.default_factory  # type: ignore[return-value]
    base = get_type_hints(section)[item.name]
    where, fix = f"{name}.{TARGET_KEY}", f"a class as in the files of conf/{name}/"
    try:
        found = instantiate({TARGET_KEY: str(target), "_partial_": True}).func
        if not (isinstance(found, type) and issubclass(found, base) and is_dataclass(found)):
            raise TypeError(f"must be a frozen dataclass derived from {base.__name__}")
        OmegaConf.structured(found)  # which refuses fields of types that no configuration has
    except Exception as error:  # whatever the import raises, wrapped by Hydra
        what = str(error).splitlines()[0].partition(", set env var")[0]
        problems.add(f"{target}: {what}", where=where, fix=fix)
        return None
    return found
