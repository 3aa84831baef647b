"""A whole model on every rank: one process, or copies whose gradients are averaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.nn.parallel import DistributedDataParallel

from galpaca.training.strategies.many_ranks import TIMEOUT, ManyRanks
from galpaca.training.strategies.step_strategy import StepStrategy

# Buffers are computed, and the same on all ranks: sending them would make a forward of one rank alone wait. Up to torch
# 2.12 another name says so.
_KNOWN = signature(DistributedDataParallel.__init__).parameters
_OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _KNOWN else "broadcast_buffers": False
}


class SingleDevice(StepStrategy, SingleDeviceStrategy):
    """One process, one device."""

    def __init__(self, accelerator: str) -> None:
        super().__init__(device=torch.device("cpu" if accelerator == "cpu" else "cuda:0"))


class DataParallel(ManyRanks, DDPStrategy):
    """A whole model on every rank."""

    def __init__(self) -> None:
        # A bucket view saves a copy of all gradients.
        super().__init__(timeout=TIMEOUT, gradient_as_bucket_view=True, **_OWN_BUFFERS)
        # Each layer is a program of its own already, and its gradients travel while the one before is computed. This
        # would cut it once more, at every bucket of 25 MB.
        torch._dynamo.config.optimize_ddp = False

    def replica(self) -> tuple[int, int]:
        return self.global_rank, self.world_size

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        if last:
            yield
        else:
            with self.model.no_sync():
                yield
