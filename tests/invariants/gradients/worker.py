"""One of several ranks: computes a family's gradients in all the ways for its number of ranks, rank 0 saves them."""

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from families import FAMILIES, Tiny
from invariants import cpu_varlen
from invariants.gradients.toy import NUM_STEPS, PAD, SEED, STEP_EXAMPLES, make_examples, make_model
from invariants.gradients.ways import SHARDED, WAYS, Way
from lightning.pytorch.plugins.precision import MixedPrecision
from torch._dynamo.utils import counters
from torch.distributed.fsdp import MixedPrecision as FSDPMixedPrecision

from galpaca.data.split import SplitExamples
from galpaca.model import attention
from galpaca.model.compute import prepare_layers
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.tuning.full import FullTuning
from galpaca.training import strategies
from galpaca.training.consensus import from_all_ranks
from galpaca.training.datamodule import AlpacaDataModule
from galpaca.training.module import InstructionTuner
from galpaca.training.precision import ShardedPrecision
from galpaca.training.specs import BatchSpec, OptimizerSpec, PrecisionSpec, TrainerSpec
from galpaca.training.trainer import make_trainer

# Too small to move a float32 weight: both steps' gradients are those of the first weights.
RATE = OptimizerSpec(lr=1e-30, clip_norm=None, warmup_ratio=0.0)


class Recorder(InstructionTuner):
    """Keeps each step's gradients as the update would see them."""

    def __init__(self, model: Any, tiny: Tiny) -> None:
        super().__init__(model, RATE, num_steps=NUM_STEPS, seed=0, tuning=FullTuning().on(tiny.family))
        self.tiny = tiny
        self.recorded: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        own = [
            (part.name, part.start, part.of(part.parameter.grad).clone())
            for part in self.strategy.parts()
            if part.parameter.grad is not None
        ]
        whole = {
            name: torch.full_like(parameter, math.nan) for name, parameter in make_model(self.tiny).named_parameters()
        }
        for rank in from_all_ranks(own, self.trainer.world_size):
            for name, start, values in rank:
                whole[name].view(-1)[start : start + len(values)] = values
        self.recorded.append(whole)


class ScaledFloat32(MixedPrecision):
    """A loss scaler around float32 arithmetic: whatever it changes is the scaler's fault."""

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu")

    def forward_context(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class ScaledShardedFloat32(ShardedPrecision):
    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu")

    @property
    def mixed_precision_config(self) -> FSDPMixedPrecision:
        return FSDPMixedPrecision(param_dtype=torch.float32, reduce_dtype=torch.float32)

    def forward_context(self) -> AbstractContextManager[None]:
        return nullcontext()


@contextmanager
def varlen_on_cpu() -> Iterator[None]:
    with (
        patch.object(attention, "varlen_attn", cpu_varlen.varlen_attn),
        patch.object(attention, "_can_use_varlen", lambda query, dropout: True),
    ):
        yield


OPTIONS: dict[str, Callable[[Way], dict[str, Any]]] = {
    "fsdp": lambda way: {"sharding_strategy": way.sharding},
    "fsdp2": lambda way: {"reshard_after_forward": way.reshard},
}


def engine(way: Way) -> tuple[Any, Any]:
    precision = PrecisionSpec("16-mixed" if way.arithmetic == "float16" else "32-true")
    options = OPTIONS.get(way.strategy, lambda way: {})(way)
    strategy, plugin = getattr(strategies, way.strategy)(**options).make("cpu", precision)
    if way.arithmetic == "scaled":
        plugin = ScaledShardedFloat32() if way.strategy in SHARDED else ScaledFloat32()
    return strategy, plugin


def gradients(way: Way, tiny: Tiny) -> list[dict[str, torch.Tensor]]:
    model = make_model(tiny)
    torch._dynamo.reset()
    counters.clear()
    compute = ComputeSpec(way.compiled, "aot_eager", way.recompute)
    prepare_layers(model, tiny.family, compute, fast_attention=way.compiled)
    examples = make_examples()
    indices = np.arange(len(examples), dtype=np.int64)
    spec = TrainerSpec("cpu", devices=way.num_ranks, max_epochs=1, val_every_steps=NUM_STEPS)
    data = AlpacaDataModule(
        SplitExamples(examples, indices, indices[:0]),
        BatchSpec(STEP_EXAMPLES, way.max_tokens),
        spec,
        seed=SEED,
        pad_id=PAD,
        pads_to_sizes=way.compiled,
    )
    tuner = Recorder(model, tiny)
    strategy, plugin = engine(way)
    trainer = make_trainer(strategy, plugin, spec, [], root=Path(os.devnull).parent)
    with varlen_on_cpu() if way.compiled else nullcontext():
        trainer.fit(tuner, datamodule=data)
    assert counters["stats"]["unique_graphs"] == (2 if way.compiled else 0), "one for the layers, one for the last"
    return tuner.recorded


def main() -> None:
    folder, num_ranks = Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1"))
    [tiny] = [one for one in FAMILIES if one.name == sys.argv[2]]
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for way in WAYS:
        if way.num_ranks != num_ranks:
            continue
        recorded = gradients(way, tiny)
        if os.environ.get("RANK", "0") == "0":
            torch.save(recorded, folder / f"{way.name}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
