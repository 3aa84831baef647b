"""The tensors of a checkpoint, whatever number of ranks wrote it, memory-mapped."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from galpaca.errors import InputError, Problems
from galpaca.model.tensors import Shapes
from galpaca.runs.checkpoints import Manifest

# A rank's file holds pieces ``kind/parameter/place of the piece's first value``. Other kinds are the optimizer's state.
WEIGHT = "weight"
_SUFFIX = ".safetensors"


def piece_name(kind: str, parameter: str, start: int) -> str:
    return f"{kind}/{parameter}/{start}"


class CheckpointTensors:
    """A ``TensorSource`` over one kind of tensors.

    Args:
        checkpoint: its folder.
        manifest: read from there.
        kind: ``WEIGHT``, or a kind of the optimizer's state.

    Raises:
        InputError: a file that cannot be read, a parameter that is not there from its first value to its last.
    """

    def __init__(self, checkpoint: Path, manifest: Manifest, kind: str) -> None:
        self.shapes: Shapes = {name: tuple(shape) for name, shape in manifest.parameters.items()}
        self._pieces: dict[str, list[tuple[int, int, Any, str]]] = {name: [] for name in self.shapes}
        for name in manifest.files:
            if name.endswith(_SUFFIX):
                self._read_names(checkpoint / name, kind)
        self._check_whole(checkpoint, kind)

    def read(self, name: str, start: int, out: Tensor) -> None:
        stop = start + out.numel()
        with torch.no_grad():
            for begins, ends, file, key in self._pieces[name]:
                low, high = max(start, begins), min(stop, ends)
                if low < high:
                    out[low - start : high - start].copy_(file.get_tensor(key)[low - begins : high - begins])

    def _read_names(self, path: Path, kind: str) -> None:
        try:
            file = safe_open(path, "pt")
        except (SafetensorError, OSError) as error:
            raise InputError(f"the file is truncated or damaged: {error}", where=path) from None
        for key in file.keys():  # noqa: SIM118 - no mapping
            found, _, place = key.partition("/")
            name, _, start = place.rpartition("/")
            if found == kind and name in self._pieces:
                stop = int(start) + math.prod(file.get_slice(key).get_shape())
                self._pieces[name].append((int(start), stop, file, key))

    def _check_whole(self, checkpoint: Path, kind: str) -> None:
        with Problems() as problems:
            for name, pieces in self._pieces.items():
                pieces.sort(key=lambda piece: piece[0])
                reached = 0
                for start, stop, *_ in pieces:
                    reached = stop if start == reached else -1
                if reached != math.prod(self.shapes[name]):
                    problems.add(f"{kind} {name} is incomplete", where=checkpoint)
