"""Frozen records to JSON and back: a wrong type is an error that names its place, an unknown key is kept.

Readers meet files of other versions: a key that is absent has the field's default, and one that this version does not
know goes into the field ``extra`` where the record has one, and from there into the file again. A class that has
``from_json`` and ``to_json`` reads and writes itself.
"""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

Record = TypeVar("Record")

EXTRA = "extra"
# In a field's metadata: what is None is written as null, since null says something here.
NULL = {"null": True}


class _MistypedError(ValueError):
    """What was expected and what was found, and, once it is known, where."""

    def inside(self, key: str) -> "_MistypedError":
        what, *path = self.args
        return _MistypedError(what, key, *path)

    def __str__(self) -> str:
        what, *path = self.args
        return f"{'.'.join(path).replace('.[', '[')}: {what}" if path else str(what)


class _Key(NamedTuple):
    """A field of a record, as its JSON has it."""

    read: Callable[[Any], Any]
    is_required: bool
    is_kept_null: bool


def decode(kind: type[Record], value: Any) -> Record:
    """A record from the parsed JSON that ``encode`` made.

    Args:
        kind: a dataclass, whose fields are scalars, mappings, tuples of one type, or records themselves.

    Raises:
        ValueError: a value of another type, or a key without a default is absent; names its place.
    """
    _checked((dict,), value)
    keys = _keys(cast(Hashable, kind))
    found: dict[str, Any] = {}
    for name, key in keys.items():
        if name in value:
            found[name] = _inside(name, key.read, value[name])
        elif key.is_required:
            raise _MistypedError(f"{name} is missing")
    if _has_extra(cast(Hashable, kind)):
        found[EXTRA] = {name: one for name, one in value.items() if name not in keys}
    return kind(**found)


def encode(record: Any) -> dict[str, Any]:
    """A record as a JSON-ready mapping, in the order of its fields.

    What is None is left out unless the field says that null means something; what is not finite counts as None, since
    JSON has no NaN.
    """
    content: dict[str, Any] = {}
    for name, key in _keys(cast(Hashable, type(record))).items():
        value = _plain(getattr(record, name))
        if value is not None or key.is_kept_null:
            content[name] = value
    return content | {name: _plain(value) for name, value in getattr(record, EXTRA, {}).items()}


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return encode(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _has_extra(kind: Any) -> bool:
    return any(item.name == EXTRA for item in fields(kind))


@cache
def _keys(kind: Any) -> dict[str, _Key]:
    hints = get_type_hints(kind)
    return {item.name: _key(item, hints[item.name]) for item in fields(kind) if item.name != EXTRA}


def _key(item: Field[Any], hint: Any) -> _Key:
    is_required = item.default is MISSING and item.default_factory is MISSING
    return _Key(_reader(hint), is_required, bool(item.metadata.get("null")))


def _reader(kind: Any) -> Callable[[Any], Any]:
    """What turns a value of parsed JSON into one of this type, or raises."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: value
    if origin is UnionType:
        (inner,) = (_reader(one) for one in arguments if one is not NoneType)
        return lambda value: None if value is None else inner(value)
    if hasattr(kind, "from_json"):
        return partial(_read_own, kind.from_json)
    if is_dataclass(kind):
        return partial(decode, cast(type, kind))
    if origin is tuple:
        return partial(_read_items, _reader(arguments[0]))
    if origin is Mapping:
        return partial(_read_mapping, _reader(arguments[1]))
    return partial(_checked, (int, float) if kind is float else (kind,))


_NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
_NAMES |= {int: "an integer", float: "a number", bool: "true or false"}


def _checked(kinds: tuple[type, ...], value: Any) -> Any:
    """The value, which must be of one of these types; true and false are no numbers."""
    if isinstance(value, kinds) and (kinds == (bool,) or not isinstance(value, bool)):
        return value
    raise _MistypedError(f"expected {_NAMES[kinds[-1]]}, got {str(value)[:40]!r}")


def _read_own(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(_checked((dict,), value))
    except (ValueError, TypeError) as error:
        raise _MistypedError(str(error)) from None


def _read_items(read: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    return tuple(_inside(f"[{place}]", read, one) for place, one in enumerate(_checked((list,), value)))


def _read_mapping(read: Callable[[Any], Any], value: Any) -> dict[str, Any]:
    return {name: _inside(name, read, one) for name, one in _checked((dict,), value).items()}


def _inside(key: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except _MistypedError as error:
        raise error.inside(key) from None
