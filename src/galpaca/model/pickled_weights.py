"""Reads weights in PyTorch's pickle format without running any code in them, and writes them as safetensors."""

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from galpaca.errors import InputError, Problems, first_line
from galpaca.files.checksums import FileFacts
from galpaca.model.families.family import Family
from galpaca.model.families.known import family_of
from galpaca.model.folder_tensors import INDEX_FILE, SINGLE_FILE, indexed_files
from galpaca.model.tensor_file import DTYPES, TensorEntry, write_tensor_file
from galpaca.model.tensors import chunks

PICKLED_INDEX = "pytorch_model.bin.index.json"
_AGAIN = "copy or download the file again"
_CHECKED_AT_ONCE = 4  # files; each reading thread keeps a core and the disk busy


def pickled_files(folder: Path) -> list[Path]:
    """The ``.bin`` files that hold a folder's weights; none if it has none.

    Raises:
        InputError: the index cannot be read, or names files that are not there.
    """
    index = folder / PICKLED_INDEX
    return indexed_files(index) if index.is_file() else sorted(folder.glob("pytorch_model*.bin"))


def convert(folder: Path, out: Path, progress: Callable[[int], None] = lambda done: None) -> dict[str, FileFacts]:
    """Writes the weights of ``.bin`` files as safetensors, one file for each, and compares them value by value.

    Names and dtypes stay. A head that is the embedding itself is left out where the configuration ties the two.

    Args:
        folder: folder with the ``.bin`` files and ``config.json``.
        out: an existing folder that holds no weights.
        progress: called with the number of files that are done.

    Returns:
        Size and SHA-256 of each weight file.

    Raises:
        InputError: files missing, truncated or damaged; files that hold anything but weights. Nothing in them is run,
            and nothing is written before all of them have been read.
        OSError: the disk is full; what was written so far stays.
    """
    files = pickled_files(folder)
    _check(files)
    family = _tying_family(folder)
    facts, weight_map, num_bytes = {}, {}, 0
    for number, path in enumerate(files, start=1):
        tensors = _load(path)
        if family:
            _drop_tied_head(tensors, family)
        entries = [TensorEntry(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
        name = SINGLE_FILE if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        facts[name] = write_tensor_file(out / name, entries, tensors.values(), {"format": "pt"})
        _compare(out / name, tensors, path)
        weight_map.update(dict.fromkeys(tensors, name))
        num_bytes += sum(entry.num_bytes for entry in entries)
        progress(number)
    if len(files) > 1:
        index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (out / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return facts


def _check(files: list[Path]) -> None:
    """Checks all files before anything is written.

    Raises:
        InputError: problems of any of the files.
    """
    seen: dict[str, Path] = {}
    with Problems() as problems, ThreadPoolExecutor(_CHECKED_AT_ONCE) as pool:
        for path, damage in zip(files, pool.map(_damage, files), strict=True):
            if damage:
                problems.add(f"the weight file is truncated or damaged: {damage}", where=path, fix=_AGAIN)
                continue
            for name in problems.collect(partial(_load, path)) or {}:
                if name in seen:
                    problems.add(f"{name} is in {seen[name].name} too", where=path, fix="remove one of the files")
                seen[name] = path


def _damage(path: Path) -> str:
    """What is wrong with the archive; nothing if all its checksums fit, or if it is no archive."""
    if not _begins_as_archive(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        return str(error)
    return f"checksum mismatch in {bad}" if bad else ""


def _begins_as_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _load(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, memory-mapped.

    Raises:
        InputError: it holds anything else, or is of the kind before PyTorch 1.6, which cannot be mapped.
    """
    if not _begins_as_archive(path):
        raise InputError(
            "not a weights file of PyTorch 1.6 or later",
            where=path,
            why="older files cannot be mapped into memory; a Git LFS pointer or an error page looks like this too",
            fix=_AGAIN,
        )
    try:
        # A pickle is a program. weights_only runs nothing but the making of tensors; there is no other way in here.
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise _wants_more(path, error) from None
    except (RuntimeError, OSError, EOFError, KeyError) as error:
        what = f"the weight file is truncated or damaged: {first_line(error)}"
        raise InputError(what, where=path, fix=_AGAIN) from None
    odd = _oddities(content)
    if odd:
        what = f"the file contains more than named weights: {odd}"
        raise InputError(what, where=path, fix="a state dict of the model")
    return dict(content)


def _wants_more(path: Path, error: Exception) -> InputError:
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    return InputError(
        f"the file wants to run {wanted.group(1) if wanted else 'something'} when it is read, and is refused",
        where=path,
        why="weights never need that; nothing was run",
        fix="do not use this file; get the model from a trusted source, as safetensors if available",
    )


def _oddities(content: Any) -> str:
    if not isinstance(content, dict):
        return type(content).__name__
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            return f"{name!r} is of the type {type(value).__name__}"
        if value.layout != torch.strided or value.dtype not in DTYPES:
            return f"{name} is {value.dtype}, {value.layout}"
    return ""


def _tying_family(folder: Path) -> Family | None:
    """The family, where the configuration ties the head; None where nothing may be left out."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        family = family_of(config["model_type"], folder)
        return family if config.get("tie_word_embeddings", family.ties_head) else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, InputError):
        return None


def _drop_tied_head(tensors: dict[str, Tensor], family: Family) -> None:
    """Takes a head away that is the same memory as the embedding."""
    named = {family.file_name(name): name for name in tensors}
    head, embedding = named.get(family.head), named.get(family.embedding)
    if head and embedding and _memory(tensors[head]) == _memory(tensors[embedding]):
        del tensors[head]


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _compare(path: Path, tensors: dict[str, Tensor], source: Path) -> None:
    """Compares written tensors bitwise with their source.

    Raises:
        InputError: what is on disk differs from what was read.
    """
    file = safe_open(path, "pt")
    with Problems() as problems:
        for name in sorted(tensors.keys() ^ set(file.keys())):
            problems.add(f"{name} was not written", where=path, fix="check the disk, and try again")
        for name in sorted(tensors.keys() & set(file.keys())):
            wanted, found = tensors[name], file.get_tensor(name)
            if (wanted.dtype, wanted.shape) != (found.dtype, found.shape) or not _same_bits(wanted, found):
                problems.add(f"{name} differs from {source.name}", where=path, fix="check the disk, and try again")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Not by value: a NaN differs from itself."""
    left, right = (tensor.contiguous().view(-1).view(torch.uint8) for tensor in (one, other))
    return all(torch.equal(left[a:b], right[a:b]) for a, b in chunks(len(left)))
