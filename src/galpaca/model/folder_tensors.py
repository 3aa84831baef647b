"""The weights of a Hugging Face folder, memory-mapped: only what is read takes memory, and many ranks share it."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from galpaca.errors import InputError, Problems
from galpaca.files.checksums import facts_of
from galpaca.model.families.family import Family
from galpaca.model.tensors import Shapes, chunks

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_AGAIN = "copy or download the folder again"


class FolderTensors:
    """A ``TensorSource`` over ``model.safetensors``, or over the shards of an index.

    Names are those of the family's model, whatever the files have.

    Args:
        folder: folder with safetensors files.
        family: the model's.
        tied_head: the head shares the embedding, so a copy of it in the files is ignored.

    Raises:
        InputError: files missing, truncated or unreadable; a duplicate weight; a copy of a tied head that
            differs from the embedding.
    """

    def __init__(self, folder: Path, family: Family, *, tied_head: bool) -> None:
        self.folder, self.family = folder, family
        self._files = _open(weight_files(folder))
        self._places: dict[str, tuple[Any, str]] = {}
        with Problems() as problems:
            for path, file in self._files.items():
                for key in file.keys():  # noqa: SIM118 - no mapping
                    name = family.file_name(key)
                    if name in self._places:
                        problems.add(f"duplicate weight {name}", where=path, fix=_AGAIN)
                    if name is not None:
                        self._places[name] = (file, key)
        if tied_head:
            self._drop_tied_head()

    @cached_property
    def shapes(self) -> Shapes:
        return {name: tuple(file.get_slice(key).get_shape()) for name, (file, key) in self._places.items()}

    def read(self, name: str, start: int, out: Tensor) -> None:
        file, key = self._places[name]
        flat = file.get_tensor(key).view(-1)  # a view of the file
        with torch.no_grad():
            out.copy_(flat[start : start + out.numel()])

    def _drop_tied_head(self) -> None:
        head, embedding = self.family.head, self.family.embedding
        if head not in self._places or embedding not in self._places:
            return
        ours, theirs = (file.get_tensor(key) for file, key in (self._places[head], self._places[embedding]))
        if ours.shape != theirs.shape or not _equal(ours.view(-1), theirs.view(-1)):
            raise InputError(
                f"{head} differs from the embedding, but the configuration ties them",
                where=self.folder,
                why="one of the two would be lost silently",
                fix="set tie_word_embeddings=false in its config.json if the model has a separate head",
            )
        del self._places[head]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a folder's weights.

    Raises:
        InputError: there are none, or one that the index names is missing.
    """
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.is_file():
        return [single]
    if not index.is_file():
        if any(folder.glob("pytorch_model*.bin")):
            raise InputError(
                "the weights are in PyTorch's pickle format, which can run code when it is loaded",
                where=folder,
                fix=f"convert them once with galpaca prepare --weights {folder}",
            )
        raise InputError("the folder has no weights", where=folder, why=f"no {SINGLE_FILE}", fix=_AGAIN)
    return indexed_files(index)


def weights_fingerprint(folder: Path) -> str:
    """SHA-256 over the checksums of all files of weights, whatever they are called: all of them are read.

    Raises:
        InputError: there are none, or one is missing.
    """
    digests = sorted(facts.sha256 for facts in facts_of(weight_files(folder)).values())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def indexed_files(index: Path) -> list[Path]:
    """The files that an index names, all beside it.

    Raises:
        InputError: the index cannot be read, or names files that are not there.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the index is not JSON with a weight_map: {error}", where=index, fix=_AGAIN) from None
    with Problems() as problems:
        for name in names:
            if Path(name).name != name:
                problems.add(f"the index names {name!r}, which is outside the folder", where=index, fix=_AGAIN)
            elif not (path := index.parent / name).is_file():
                problems.add("the weight file is missing", where=path, why="the index names it", fix=_AGAIN)
    return [index.parent / name for name in names]


def _open(paths: list[Path]) -> dict[Path, Any]:
    problems, opened = Problems(), {}
    for path in paths:
        try:
            opened[path] = safe_open(path, "pt")
        except (SafetensorError, OSError) as error:
            problems.add(f"the weight file is truncated or damaged: {error}", where=path, fix=_AGAIN)
    problems.raise_any()
    return opened


def _equal(one: Tensor, other: Tensor) -> bool:
    return all(torch.equal(one[a:b], other[a:b]) for a, b in chunks(len(one)))
