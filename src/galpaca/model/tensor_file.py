"""Safetensors files written piece by piece: the library's own writer wants all tensors of a file in memory at once.

The format is the library's (https://huggingface.co/docs/safetensors): eight bytes with the length of the header, the
header in JSON, then the values of one tensor after the other.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from galpaca.files.checksums import FileFacts
from galpaca.files.disks import naming

# What a file may hold, and the format's name for it.
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
_ALIGNMENT = 8  # of the first value; readers map the file and want aligned numbers
_WRITE_BYTES = 1 << 24


@dataclass(frozen=True)
class TensorEntry:
    """What the header says of one tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensor_file(
    path: Path, entries: Iterable[TensorEntry], values: Iterable[Tensor], metadata: Mapping[str, str] | None = None
) -> FileFacts:
    """Writes a new file and returns when it is on disk.

    Args:
        path: the file; there must be none yet.
        entries: its tensors in order.
        values: all their values in order, on the CPU and in their dtypes, in contiguous pieces of any size. Each piece
            is requested when the one before has been written.
        metadata: text by text, for the header.

    Raises:
        OSError: the disk is full, the folder read-only; what was written so far stays.
        ValueError: more or fewer values than the entries say.
    """
    entries = list(entries)
    expected = sum(entry.num_bytes for entry in entries)
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        header = _header(entries, metadata)
        num_bytes = 0
        with naming(path):
            _write(descriptor, memoryview(header), digest)
            for piece in values:
                view = piece.contiguous().view(-1).view(torch.uint8).numpy().data
                _write(descriptor, view, digest)
                num_bytes += len(view)
        if num_bytes != expected:
            raise ValueError(f"{path}: {num_bytes} bytes of values where the header says {expected}")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return FileFacts(len(header) + num_bytes, digest.hexdigest())


def _header(entries: Iterable[TensorEntry], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for entry in entries:
        span = [offset, offset + entry.num_bytes]
        header[entry.name] = {"dtype": DTYPES[entry.dtype], "shape": list(entry.shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write(descriptor: int, view: memoryview, digest: "hashlib._Hash") -> None:
    for start in range(0, len(view), _WRITE_BYTES):
        piece = view[start : start + _WRITE_BYTES]
        digest.update(piece)
        while piece:
            piece = piece[os.write(descriptor, piece) :]
