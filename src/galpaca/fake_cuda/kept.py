"""What autograd keeps for backward, on fake tensors: bytes by dtype and shape."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Kept:
    """Storages that are kept for backward, each once, beside those of parameters."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = {_address(parameter) for parameter in parameters}
        # Tensors, so that no address is used again.
        self._tensors: dict[int, Tensor] = {}

    @property
    def num_bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._tensors.values())

    def by_kind(self) -> Counter[tuple[str, tuple[int, ...]]]:
        """Bytes by dtype and shape."""
        kinds: Counter[tuple[str, tuple[int, ...]]] = Counter()
        for tensor in self._tensors.values():
            kinds[str(tensor.dtype), tuple(tensor.shape)] += tensor.untyped_storage().nbytes()
        return kinds

    def add(self, tensor: Tensor) -> Tensor:
        if (address := _address(tensor)) not in self._parameters:
            self._tensors.setdefault(address, tensor)
        return tensor


@contextmanager
def kept_for_backward(parameters: Iterable[Tensor]) -> Iterator[Kept]:
    """Notes what a forward in the context keeps."""
    kept = Kept(parameters)
    with torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor):
        yield kept


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
