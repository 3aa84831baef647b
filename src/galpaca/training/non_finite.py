"""A loss or gradient that is not a finite number: its update is left out on the device, and its place is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from galpaca.data.collate import StepBatch
from galpaca.training.parts import plain_name

if TYPE_CHECKING:
    from galpaca.training.module import InstructionTuner


class UpdateGuard:
    """Leaves an update out where loss or gradients are not finite, without the host looking at them.

    torch's fused update takes a flag on the device, made for loss scalers. Updates that know no such flag
    (``optim.fused=false``, moments in bfloat16) cost a read in each step.

    Args:
        holds: leave out all updates after the first such step too, until ``release``: the weights stay those at which
            it happened.
    """

    def __init__(self, *, holds: bool) -> None:
        self.holds = holds
        self._held: Tensor | None = None

    def before_update(self, optimizer: Optimizer, is_bad: Tensor) -> None:
        """Makes the next update a no-op if the step is not finite.

        Args:
            is_bad: scalar bool on the device, the same on all ranks.
        """
        if self.holds:
            is_bad = is_bad if self._held is None else is_bad | self._held
            self._held = is_bad
        if optimizer.param_groups[0].get("fused"):
            optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]
        elif is_bad.item():
            optimizer.zero_grad()  # an update passes over parameters without a gradient

    def after_update(self, optimizer: Optimizer) -> None:
        if hasattr(optimizer, "found_inf"):
            del optimizer.found_inf

    def release(self) -> None:
        self._held = None


@dataclass(frozen=True)
class Finding:
    """Where a number was not finite first.

    Attributes:
        rank, micro_batch: whose.
        module: the first whose output was not finite; ``the loss`` where all outputs were.
    """

    rank: int
    micro_batch: int
    module: str


def find_non_finite(tuner: InstructionTuner, step: StepBatch) -> list[Finding]:
    """Computes a step's losses again and looks at every module's output. Called by all ranks together.

    Returns:
        The first place in each rank's first micro-batch that has one; empty where all is finite now, as when only
        gradients were not.
    """
    found: Finding | None = None
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for number, micro_batch in enumerate(step.micro_batches):
            tuner.seed_micro_batch(step.index, number)
            with _watched(tuner.model) as names:
                loss = tuner.strategy.run_micro_batch(micro_batch)
            if found is None and (names or not loss.isfinite().item()):
                found = Finding(tuner.global_rank, number, names[0] if names else "the loss")
    return [one for one in _gathered(found, tuner.trainer.world_size) if one is not None]


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """Names of modules with an output that is not finite, in the order in which they were computed."""
    names: list[str] = []

    def look_at(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple | list) else (output,)
            if not all(t.isfinite().all().item() for t in tensors if isinstance(t, Tensor) and t.is_floating_point()):
                names.append(name)

        return look

    hooks = [module.register_forward_hook(look_at(plain_name(name))) for name, module in model.named_modules() if name]
    try:
        yield names
    finally:
        for hook in hooks:
            hook.remove()


def _gathered(found: Finding | None, num_ranks: int) -> Sequence[Finding | None]:
    if num_ranks == 1:
        return [found]
    everyone: list[Finding | None] = [None] * num_ranks
    torch.distributed.all_gather_object(everyone, found)
    return everyone
