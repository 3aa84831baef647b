"""Several processes under one process group."""

from collections.abc import Iterable
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from galpaca.training.strategies.step_strategy import StepStrategy

# How long ranks wait for each other before they give up.
TIMEOUT = timedelta(minutes=30)


class ManyRanks(StepStrategy):
    """Several processes under one process group."""

    def on_any_rank(self, flag: Tensor) -> Tensor:
        highest = flag.to(torch.uint8)
        torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
        return highest.bool()

    def from_rank_0(self, tensor: Tensor) -> Tensor:
        torch.distributed.broadcast(tensor, src=0)
        return tensor


def sharded_norm(shards: Iterable[nn.Parameter], device: torch.device, group: ProcessGroup) -> Tensor:
    """Scalar float32: the norm of the gradients of all ranks' shards.

    Args:
        shards: this rank's.
        group: ranks that together hold each gradient once.
    """
    norms = [torch.linalg.vector_norm(p.grad, dtype=torch.float32) for p in shards if p.grad is not None]
    own = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros((), device=device)
    square = own**2
    torch.distributed.all_reduce(square, group=group)
    return square**0.5
