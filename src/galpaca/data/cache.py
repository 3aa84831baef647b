"""The encoded examples on disk: memory-mapped, checksummed, written once however many ranks start together."""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from galpaca.data.encoded_set import FORMAT_VERSION
from galpaca.data.examples import EncodedExamples
from galpaca.data.receipt import Receipt
from galpaca.errors import InputError
from galpaca.files.build_once import build_folder_once
from galpaca.files.checksums import file_facts, json_digest

_ARRAYS = tuple(field.name for field in fields(EncodedExamples) if field.name != "receipt")
_META = "meta.json"


def cache_key(**parts: object) -> str:
    """SHA-256 over everything that determines the examples, and the format version."""
    return json_digest({**parts, "format_version": FORMAT_VERSION})


def cache_entry(root: Path, key: str) -> Path:
    """The folder of the examples of ``key``."""
    return root / key[:32]


def load_or_encode(root: Path, key: str, encode: Callable[[], EncodedExamples]) -> EncodedExamples:
    """Loads the examples of ``key``, encoding them first if they are missing or damaged.

    One process encodes while others that need the same key wait.

    Raises:
        InputError: the folder cannot be written; or whatever ``encode`` refuses.
    """
    entry = cache_entry(root, key)
    try:
        return _load(entry)
    except FileNotFoundError:
        pass
    except _DamagedError as damage:
        warnings.warn(f"the encoded data in {entry} is damaged ({damage}); encoding it again", stacklevel=2)
    try:
        build_folder_once(entry, lambda folder: _save(folder, encode()), lambda: _is_whole(entry))
        return _load(entry)
    except OSError as error:
        raise InputError(
            f"cannot save the encoded data: {error.strerror or error}", where=root, fix="data.cache_dir=FOLDER"
        ) from None


class _DamagedError(Exception):
    """Files on disk that are not as they were written."""


def _load(entry: Path) -> EncodedExamples:
    if not entry.is_dir():
        raise FileNotFoundError(entry)
    try:
        meta = json.loads((entry / _META).read_text())
        if json_digest(meta["content"]) != meta["sha256"]:
            raise ValueError(f"checksum of {_META}")
        meta = meta["content"]
        arrays = {name: _load_array(entry / f"{name}.npy", meta["files"][name]) for name in _ARRAYS}
        return EncodedExamples(**arrays, receipt=Receipt(**meta["receipt"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _DamagedError(f"{type(error).__name__}: {error}") from None


def _is_whole(entry: Path) -> bool:
    try:
        _load(entry)
    except (FileNotFoundError, _DamagedError):
        return False
    return True


def _load_array(path: Path, sha256: str) -> Any:
    if file_facts(path).sha256 != sha256:
        raise ValueError(f"checksum of {path.name}")
    return np.load(path, mmap_mode="r")


def _save(folder: Path, examples: EncodedExamples) -> None:
    files = {}
    for name in _ARRAYS:
        path = folder / f"{name}.npy"
        np.save(path, getattr(examples, name))
        files[name] = file_facts(path).sha256
    content = {"files": files, "receipt": asdict(examples.receipt)}
    (folder / _META).write_text(json.dumps({"content": content, "sha256": json_digest(content)}, indent=2))
