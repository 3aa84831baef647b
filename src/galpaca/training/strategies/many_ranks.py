"""Several processes under one process group."""

from datetime import timedelta

import torch
from torch import Tensor

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
