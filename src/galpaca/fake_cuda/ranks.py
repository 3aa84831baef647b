"""Ranks that are not there: a process group of any size in which this process is the first, and alone.

torch's own "fake" group answers every collective at once and moves nothing. What else DDP and FSDP ask of a group or of
a device, on their way to what only values could tell, is answered here.
"""

from typing import Any

import torch
import torch.distributed
import torch.distributed.device_mesh as device_mesh
import torch.distributed.fsdp._flat_param as flat_parameter
import torch.nn.parallel.distributed as data_parallel
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.distributed.fsdp._common_utils import _FSDPDeviceHandle
from torch.testing._internal.distributed.fake_pg import FakeStore


def become_first_of(num_ranks: int) -> None:
    """Makes this process the first of so many, for good; call it before modules that make meshes are imported."""
    if torch.distributed.is_initialized():
        return
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=num_ranks)
    _meshes()
    _fsdp()
    _ddp()


def _meshes() -> None:
    """The ranks of a mesh are read, so their tensor must have values."""
    make = device_mesh.init_device_mesh

    def made(*arguments: Any, **options: Any) -> Any:
        with unset_fake_temporarily():
            return make(*arguments, **options)

    device_mesh.init_device_mesh = made


def _fsdp() -> None:
    """FSDP1 asks whether there is a card where everything else may go on without one, and takes a storage without an
    address for one without memory.
    """
    flat: Any = flat_parameter
    flat._data_ptr_allocated = lambda tensor: tensor.untyped_storage().nbytes() > 0
    handle: Any = _FSDPDeviceHandle
    handle.from_device = classmethod(lambda cls, device: _Handle())


class _Handle:
    """``torch.cuda``, which says that it is there."""

    def is_available(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cuda, name)


def _ddp() -> None:
    """DDP compares the ranks' models, sums with the values at hand, orders its buckets by time, and logs times."""
    module: Any = data_parallel
    module._verify_param_shape_across_processes = lambda *_, **__: None
    module._sync_module_states = lambda *_, **__: None
    wrapper: Any = data_parallel.DistributedDataParallel
    initialize = wrapper.__init__

    def initialized(self: Any, *arguments: Any, **options: Any) -> None:
        initialize(self, *arguments, **options)
        self.register_comm_hook(None, _summed)
        self.reducer, self.logger = _Reducer(self.reducer), _Logger()

    wrapper.__init__ = initialized


def _summed(state: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Gradients are summed in their place."""
    future: torch.futures.Future[Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


class _Reducer:
    """DDP's reducer with the buckets that it began with; others would be of the same size together."""

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer

    def _rebuild_buckets(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reducer, name)


class _Logger:
    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None
