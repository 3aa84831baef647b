"""Random damage to small files: truncated, flipped, other values, other types."""

import json
import random
from typing import Any

import yaml

# What may stand in a file's place, or in that of one value.
_CONTENTS = (b"", b"\0" * 50, b"[]", b"null", b"{}", b"3", b"\xff\xfe", b"- a\n", b": :\n", b"{{", b"a: &x [*x]\n")
_VALUES: tuple[Any, ...] = (None, -1, 0, 3.5, "x", [], {}, [1], {"a": 1}, True, 10**30)
_READERS: dict[str, tuple[Any, Any]] = {".json": (json.loads, json.dumps), ".yaml": (yaml.safe_load, yaml.safe_dump)}


def damaged(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """The content of a file after one kind of damage."""
    kinds = (_truncated, _flipped, _without_a_line, lambda *_: rng.choice(_CONTENTS), _repeated)
    if suffix in (*_READERS, ".jsonl") and rng.random() < 0.5:
        return _with_another_value(content, suffix, rng)
    return rng.choice(kinds)(content, rng)


def _truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def _without_a_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    lines.pop(rng.randrange(len(lines)))
    return b"\n".join(lines)


def _repeated(content: bytes, _: random.Random) -> bytes:
    return content + content[:100]


def _with_another_value(content: bytes, suffix: str, rng: random.Random) -> bytes:
    text = content.decode()
    if suffix == ".jsonl":
        lines = text.splitlines()
        number = rng.randrange(len(lines))
        lines[number] = json.dumps(_changed(json.loads(lines[number]), rng))
        return "".join(f"{line}\n" for line in lines).encode()
    load, dump = _READERS[suffix]
    return str(dump(_changed(load(text), rng))).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: one for name, one in value.items() if name != key}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        index = rng.randrange(len(value))
        return [*value[:index], _changed(value[index], rng), *value[index + 1 :]]
    return rng.choice(_VALUES)
