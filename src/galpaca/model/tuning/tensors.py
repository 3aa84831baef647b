"""Tensors of adapted models, each read range by range from those of the base: rounded, quantized, first or merged."""

import math
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from galpaca.model.tensors import Shapes, TensorSource, chunks
from galpaca.model.tuning.low_rank import A, B
from galpaca.model.tuning.nf4 import BLOCK_VALUES, codes_of, dequantize, scales_of

# Rows whose product with an adapter is computed at a time; part of what the bits of a merged model are, since a
# product of few rows has other bits than these rows of a product of many.
MERGED_ROWS = 256
# Values that are quantized at a time: 16 MiB in float32.
_CHUNK_VALUES = 1 << 22
_CODES, _SCALES, _WEIGHT = "codes", "scales", "weight"


def stem_of(name: str) -> str:
    """The layer of a parameter, ``q_proj`` for ``q_proj.lora_A.weight``."""
    for end in (A, B, _CODES, _SCALES, _WEIGHT, "bias"):
        if name.endswith(f".{end}"):
            return name.removesuffix(f".{end}")
    return name


def read_whole(source: TensorSource, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor in its shape, on the host."""
    whole = torch.empty(source.shapes[name], dtype=dtype)
    source.read(name, 0, whole.view(-1))
    return whole


class RoundedTensors:
    """A source whose tensors have been in another dtype.

    Args:
        source: the exact ones.
        dtype_of: the dtype that a tensor is rounded to, by its name.
    """

    def __init__(self, source: TensorSource, dtype_of: Callable[[str], torch.dtype]) -> None:
        self.source, self.shapes, self._dtype_of = source, source.shapes, dtype_of

    def read(self, name: str, start: int, out: Tensor) -> None:
        rounded = torch.empty_like(out, dtype=self._dtype_of(name))
        self.source.read(name, start, rounded)
        with torch.no_grad():
            out.copy_(rounded)


class QuantizedTensors:
    """A source in which ``codes`` and ``scales`` of NF4 stand where some matrices' ``weight`` was.

    Args:
        source: the exact ones.
        shapes: with the shapes of codes and scales.
    """

    def __init__(self, source: TensorSource, shapes: Shapes) -> None:
        self.source, self.shapes = source, shapes

    def read(self, name: str, start: int, out: Tensor) -> None:
        kind = name.rpartition(".")[2]
        if name in self.source.shapes or kind not in (_CODES, _SCALES):
            self.source.read(name, start, out)
            return
        each, quantize = (2, codes_of) if kind == _CODES else (BLOCK_VALUES, scales_of)
        weight = f"{stem_of(name)}.{_WEIGHT}"
        for low, high, values, skip in self._blocks(weight, start * each, (start + out.numel()) * each, out.device):
            made = quantize(values)[skip // each :]
            begins, ends = low // each - start, high // each - start
            with torch.no_grad():
                out[begins:ends].copy_(made[: ends - begins])

    def _blocks(
        self, weight: str, start: int, stop: int, device: torch.device
    ) -> Iterator[tuple[int, int, Tensor, int]]:
        """Whole blocks around ranges of a weight: (start, stop) of the range, values, and how many come before."""
        num_values = math.prod(self.source.shapes[weight])
        for begins, ends in chunks(num_values, _CHUNK_VALUES):
            low, high = max(start, begins), min(stop, ends)
            if low < high:
                first = low // BLOCK_VALUES * BLOCK_VALUES
                last = min(-(-high // BLOCK_VALUES) * BLOCK_VALUES, num_values)
                values = torch.empty(last - first, device=device)
                self.source.read(weight, first, values)
                yield low, high, values, low - first


class DequantizedTensors:
    """A source whose tensors, some of them, have been in NF4.

    Args:
        source: the exact ones.
        is_quantized: by name.
    """

    def __init__(self, source: TensorSource, is_quantized: Callable[[str], bool]) -> None:
        self.source, self.shapes, self._is_quantized = source, source.shapes, is_quantized

    def read(self, name: str, start: int, out: Tensor) -> None:
        if not self._is_quantized(name):
            self.source.read(name, start, out)
            return
        first = start // BLOCK_VALUES * BLOCK_VALUES
        stop = min(-(-(start + out.numel()) // BLOCK_VALUES) * BLOCK_VALUES, math.prod(self.shapes[name]))
        for low, high in chunks(stop - first, _CHUNK_VALUES):
            values = torch.empty(high - low, device=out.device)
            self.source.read(name, first + low, values)
            made = dequantize(codes_of(values), scales_of(values))
            begins, ends = max(start, first + low), min(start + out.numel(), first + high)
            with torch.no_grad():
                out[begins - start : ends - start].copy_(made[begins - first - low : ends - first - low])


class FirstAdapters:
    """A base's tensors, and adapters to start from: A uniform in ±1 / sqrt(in), as PEFT has it, and B 0.

    Args:
        base: all but the adapters.
        shapes: with those of the adapters.
        seed: of the run.
    """

    def __init__(self, base: TensorSource, shapes: Shapes, seed: int) -> None:
        self.base, self.shapes, self.seed = base, shapes, seed

    def read(self, name: str, start: int, out: Tensor) -> None:
        with torch.no_grad():
            if name.endswith(f".{B}"):
                out.zero_()
            elif name.endswith(f".{A}"):
                out.copy_(self._uniform(name).view(-1)[start : start + out.numel()])
            else:
                self.base.read(name, start, out)

    def _uniform(self, name: str) -> Tensor:
        words = np.random.SeedSequence([self.seed, zlib.crc32(name.encode())]).generate_state(2, np.uint32)
        generator = torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))
        bound = 1 / math.sqrt(self.shapes[name][1])
        return torch.empty(self.shapes[name]).uniform_(-bound, bound, generator=generator)


class MergedTensors:
    """A base's tensors with the products of adapters added, in float32; what is read is rounded once.

    Args:
        base: the tensors that the adapters belong to.
        adapters: ``lora_A`` and ``lora_B`` of some of its layers.
        scaling: factor of their product.
    """

    def __init__(self, base: TensorSource, adapters: TensorSource, scaling: float) -> None:
        self.base, self.adapters, self.scaling, self.shapes = base, adapters, scaling, base.shapes
        self._pair: tuple[str, Tensor, Tensor] | None = None

    def read(self, name: str, start: int, out: Tensor) -> None:
        stem = name.removesuffix(f".{_WEIGHT}")
        if f"{stem}.{A}" not in self.adapters.shapes:
            self.base.read(name, start, out)
            return
        a, b = self._adapter(stem)
        rows, width = self.shapes[name]
        stop = start + out.numel()
        for first in range(start // width // MERGED_ROWS * MERGED_ROWS, -(-stop // width), MERGED_ROWS):
            last = min(first + MERGED_ROWS, rows)
            block = torch.empty((last - first, width))
            self.base.read(name, first * width, block.view(-1))
            block += (b[first:last] @ a) * self.scaling
            low, high = max(start, first * width), min(stop, last * width)
            with torch.no_grad():
                out[low - start : high - start].copy_(block.view(-1)[low - first * width : high - first * width])

    def _adapter(self, stem: str) -> tuple[Tensor, Tensor]:
        """The two matrices of a layer, kept until another's are asked for."""
        if self._pair is None or self._pair[0] != stem:
            self._pair = stem, read_whole(self.adapters, f"{stem}.{A}"), read_whole(self.adapters, f"{stem}.{B}")
        return self._pair[1:]
