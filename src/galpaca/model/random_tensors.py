"""Random weights to start from, each a function of the seed and its place: any part of any tensor can be made alone."""

import math
import zlib

import numpy as np
import torch
from torch import Tensor

from galpaca.model.families.family import Family
from galpaca.model.tensors import Shapes

# Values that one generator makes; part of what the numbers are.
_BLOCK_VALUES = 1 << 20


class RandomTensors:
    """A ``TensorSource`` of weights as ``transformers`` initializes decoders.

    Matrices and embeddings are normal, biases are 0, norms are 1; the embedding of the padding token is 0.

    Args:
        shapes: shapes of the model's parameters.
        family: the model's.
        seed: seed of the run.
        std: standard deviation of the normal distribution.
        pad_id: id of the padding token.
    """

    def __init__(self, shapes: Shapes, family: Family, *, seed: int, std: float, pad_id: int | None) -> None:
        self.shapes, self.family, self.seed, self.std, self.pad_id = shapes, family, seed, std, pad_id

    def read(self, name: str, start: int, out: Tensor) -> None:
        with torch.no_grad():
            if name.endswith(".bias"):
                out.zero_()
            elif self.family.is_norm(name):
                out.fill_(1.0)
            else:
                self._fill_normal(name, start, out)

    def _fill_normal(self, name: str, start: int, out: Tensor) -> None:
        stop, num_values = start + out.numel(), math.prod(self.shapes[name])
        for block in range(start // _BLOCK_VALUES, -(-stop // _BLOCK_VALUES)):
            begins = block * _BLOCK_VALUES
            ends = min(begins + _BLOCK_VALUES, num_values)
            low, high = max(start, begins), min(stop, ends)
            values = torch.empty(ends - begins).normal_(0.0, self.std, generator=self._generator(name, block))
            out[low - start : high - start].copy_(values[low - begins : high - begins])
        if name == self.family.embedding and self.pad_id is not None:
            width = self.shapes[name][1]
            low, high = (min(max(edge, start), stop) for edge in (self.pad_id * width, (self.pad_id + 1) * width))
            out[low - start : high - start].zero_()

    def _generator(self, name: str, block: int) -> torch.Generator:
        words = np.random.SeedSequence([self.seed, zlib.crc32(name.encode()), block]).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))
