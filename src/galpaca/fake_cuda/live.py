"""Memory that fake tensors would take on a card, as its allocator counts it: now, and at the most."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# CUDA's allocator rounds each allocation up to it: ``kMinBlockSize`` of ``c10/cuda/CUDACachingAllocator.cpp``.
_BLOCK_BYTES = 512


class LiveBytes(TorchDispatchMode):
    """Counts the storages of fake tensors that are alive, from their first operation until nothing holds them.

    Within it, compiled programs run as they would, line by line, with kernels that do nothing.

    Args:
        mode: whose tensors count; a compiler's own do not.
        device: of which type.

    Attributes:
        now: bytes at the moment.
        peak: most bytes since it was last set.
    """

    def __init__(self, mode: FakeTensorMode, device: str = "cuda") -> None:
        super().__init__()
        self.now = self.peak = 0
        self._mode, self._device = mode, device
        self._known: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Else the compiler would leave all that runs under the mode uncompiled."""
        return True

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = op(*args, **(kwargs or {}))
        for one in tree_leaves(output):
            self.add(one)
        return output

    def __enter__(self) -> LiveBytes:
        resize = self._resize = torch.UntypedStorage.resize_

        def resized(storage: torch.UntypedStorage, num_bytes: int) -> Any:
            """FSDP1 frees and allocates by it, and it is no operation."""
            found: Any = resize(storage, num_bytes)
            if storage._cdata in self._known:
                self._count(storage)
            return found

        storages: Any = torch.UntypedStorage
        storages.resize_ = resized
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        storages: Any = torch.UntypedStorage
        storages.resize_ = self._resize
        super().__exit__(*error)

    def restart(self) -> int:
        """Begins the peak anew, and gives the one before."""
        before, self.peak = self.peak, self.now
        return before

    def add(self, value: object) -> None:
        """Takes notice of a tensor's storage; of anything else, it takes none."""
        if isinstance(value, DTensor):
            value = value._local_tensor
        if isinstance(value, FakeTensor) and value.fake_mode is self._mode and value.device.type == self._device:
            self._count(value.untyped_storage())

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, num_bytes = storage._cdata, rounded(storage.nbytes())
        known = self._known.get(key)
        if known is not None and known[0]() is storage:
            reference, before = known
        else:
            reference, before = weakref.ref(storage, lambda _: self._gone(key)), 0
        self._known[key] = reference, num_bytes
        self.now += num_bytes - before
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        _, num_bytes = self._known.pop(key)
        self.now -= num_bytes


def rounded(num_bytes: int) -> int:
    return -(-num_bytes // _BLOCK_BYTES) * _BLOCK_BYTES
