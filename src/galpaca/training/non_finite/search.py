"""Finds where a loss or an output is not a finite number first."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from galpaca.data.collate import StepBatch
from galpaca.model.parts import plain_name
from galpaca.runs.lines import NonFiniteFinding
from galpaca.training.consensus import from_all_ranks
from galpaca.training.module import InstructionTuner


def find_non_finite(tuner: InstructionTuner, step: StepBatch) -> list[NonFiniteFinding]:
    """Computes a step's losses again and looks at every module's output. Called by all ranks together.

    Returns:
        The first place in each rank's first micro-batch that has one; empty where all is finite now, as when only
        gradients were not. Its examples are not filled in.
    """
    found: NonFiniteFinding | None = None
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for number, micro_batch in enumerate(step.micro_batches):
            tuner.seed_micro_batch(step.index, number)
            with _watched(tuner.model) as names:
                loss = tuner.strategy.run_micro_batch(micro_batch)
            if found is None and (names or not loss.isfinite().item()):
                module = names[0] if names else "the loss"
                found = NonFiniteFinding(rank=tuner.global_rank, micro_batch=number, module=module)
    return [one for one in from_all_ranks(found, tuner.trainer.world_size) if one is not None]


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
