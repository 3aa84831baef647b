"""The families that there are: those of the package, and one that the configuration names."""

from importlib import import_module
from typing import Any

from galpaca.errors import InputError, first_line
from galpaca.model.families.family import Family
from galpaca.model.families.llama import Llama
from galpaca.model.families.opt import OPT

SHIPPED: tuple[Family, ...] = (OPT, Llama())

_FIX = "model.family=opt, llama, or the dotted path of a class derived from galpaca.model.families.family.Family"


def titles() -> str:
    """What all families of the package are called."""
    return ", ".join(family.title for family in SHIPPED)


def named_family(name: str) -> Family:
    """The family that ``model.family`` names: one of the package's by its model type, or a class by its dotted path.

    Raises:
        InputError: there is none.
    """
    for family in SHIPPED:
        if name == family.model_type:
            return family
    module, _, last = name.rpartition(".")
    try:
        found = getattr(import_module(module), last)
        if not (isinstance(found, type) and issubclass(found, Family)):
            raise TypeError("it is no class derived from Family")
        return found()
    except Exception as error:  # whatever the import raises
        what = f"cannot use {name!r} as a model's family: {first_line(error)}"
        raise InputError(what, where="model.family", fix=_FIX) from None


def read_family(path: str, named: str | None = None, revision: str | None = None) -> tuple[Any, Family]:
    """The configuration of a model, and its family.

    Args:
        path: folder or Hub id.
        named: value of ``model.family``.

    Raises:
        InputError: as ``named_family`` and ``family_of``.
        Exception: of many kinds, where there is no configuration, or it is damaged.
    """
    from transformers import AutoConfig

    if named:
        named_family(named)  # whose module may make its type known to transformers
    config: Any = AutoConfig.from_pretrained(path, revision=revision)
    return config, family_of(config.model_type, path, named)


def family_of(model_type: str, where: object, named: str | None = None) -> Family:
    """The family of a model.

    Args:
        model_type: that of its ``config.json``.
        where: the model's folder or Hub id.
        named: value of ``model.family``.

    Raises:
        InputError: it is of no known family, or of another than the one that is named.
    """
    candidates = SHIPPED if named is None else (named_family(named),)
    for family in candidates:
        if family.model_type == model_type:
            return family
    if named is not None:
        raise InputError(
            f"the model is of the type {model_type!r}, and model.family={named} is of {candidates[0].model_type!r}",
            where=where,
            fix="model.family=null takes the model's own",
        )
    raise InputError(
        f"models of the type {model_type!r} are not supported",
        where=where,
        why=f"packed attention and releases know these families: {titles()}",
        fix="use GALACTICA or another OPT model, or a Llama; or model.family=MODULE.CLASS for one of your own "
        "(CONTRIBUTING.md)",
    )
