"""One measurement: some optimizer steps by the project's own training path."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import lightning as L
import numpy as np
import torch

from bench.figures import known
from bench.gpu.workload import MAX_LENGTH, PAD_ID, SHAPES, make_model
from galpaca.data.examples import EncodedExamples
from galpaca.data.split import SplitExamples
from galpaca.estimate.peaks import dense_peak
from galpaca.model.attention import PACKED_ATTENTION, is_fast
from galpaca.model.compute import prepare_layers
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.opt import architecture_of
from galpaca.runs.lines import MetricsLine, StepLine
from galpaca.runs.shutdown import Shutdown
from galpaca.runs.spikes import LossSpikes
from galpaca.training.callbacks.metrics import StepMetrics
from galpaca.training.consensus import Consensus
from galpaca.training.datamodule import AlpacaDataModule
from galpaca.training.module import InstructionTuner
from galpaca.training.non_finite.policy import NonFinitePolicy
from galpaca.training.specs import BatchSpec, GuardSpec, OptimizerSpec, PrecisionSpec, TrainerSpec
from galpaca.training.step_line import StepSpeed
from galpaca.training.strategies import single
from galpaca.training.trainer import make_trainer

# The first compile, the second makes sizes dynamic, and the allocator settles.
WARM_UP_STEPS = 4
GALPACA_STEPS = 1_221


@dataclass(frozen=True)
class Case:
    """What to train, and how.

    Attributes:
        name: in the table.
        shape: one of ``SHAPES``.
        precision: as in ``conf/precision``.
        examples: a step.
        max_tokens: budget of a micro-batch.
        timed_steps: after ``WARM_UP_STEPS``.
    """

    name: str
    shape: str
    precision: str
    compute: ComputeSpec = field(default_factory=ComputeSpec)
    optim: OptimizerSpec = field(default_factory=OptimizerSpec)
    examples: int = 128
    max_tokens: int = 8_192
    timed_steps: int = 6
    dropout: float = 0.1


class _Lines:
    """Keeps a run's figures; a ``Sink`` of metrics."""

    def __init__(self) -> None:
        self.lines: list[StepLine] = []

    def write(self, lines: Sequence[MetricsLine]) -> None:
        self.lines.extend(line for line in lines if isinstance(line, StepLine))


def measure(
    case: Case,
    examples: EncodedExamples,
    device: torch.device,
    callbacks: Sequence[L.Callback] = (),
    *,
    untimed_steps: int = 0,
) -> dict[str, Any]:
    """Trains a few steps and returns a row of figures; medians over the timed steps.

    Args:
        untimed_steps: further steps at the end, which no figure is taken from.
    """
    free_memory(device)
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    fast = is_fast(accelerator, case.precision, 0.0)
    model = make_model(SHAPES[case.shape].config(case.dropout), device)
    model.set_attn_implementation(PACKED_ATTENTION)
    prepare_layers(model, case.compute, fast_attention=fast)
    num_steps = WARM_UP_STEPS + case.timed_steps + untimed_steps
    spec = TrainerSpec(accelerator, max_epochs=num_steps, max_steps=num_steps, val_every_steps=num_steps)
    data = _data(case, examples, spec, pads=case.compute.compiles(fast))
    strategy, precision = single(accelerator, PrecisionSpec(case.precision))
    peak = dense_peak(torch.cuda.get_device_name(device), case.precision) if device.type == "cuda" else None
    lines = _Lines()
    metrics = StepMetrics(
        [lines],
        Consensus(Shutdown(), every_steps=WARM_UP_STEPS),
        steps_per_epoch=num_steps,
        speed=StepSpeed(architecture_of(model.config), peak),
        policy=(policy := NonFinitePolicy(GuardSpec())),
        spikes=LossSpikes(None),
    )
    tuner = InstructionTuner(model, case.optim, num_steps=num_steps, seed=0, guard=policy.guard)
    trainer = make_trainer(strategy, precision, spec, [*callbacks, metrics])
    trainer.fit(tuner, datamodule=data)
    return _row(case, lines.lines)


def _data(case: Case, examples: EncodedExamples, spec: TrainerSpec, *, pads: bool) -> AlpacaDataModule:
    indices = np.arange(len(examples), dtype=np.int64)
    return AlpacaDataModule(
        SplitExamples(examples, indices, indices[:0]),
        BatchSpec(case.examples, max(case.max_tokens, MAX_LENGTH)),
        spec,
        seed=0,
        pad_id=PAD_ID,
        pads_to_sizes=pads,
    )


def _row(case: Case, lines: list[StepLine]) -> dict[str, Any]:
    warm_up, timed = lines[:WARM_UP_STEPS], lines[WARM_UP_STEPS : WARM_UP_STEPS + case.timed_steps]
    step_seconds = median(known(line.step_seconds) for line in timed)
    row: dict[str, Any] = {
        "name": case.name,
        "shape": case.shape,
        "precision": case.precision,
        "max_tokens": case.max_tokens,
        "examples": case.examples,
        "tokens_per_second": sum(line.tokens for line in timed) / sum(known(line.step_seconds) for line in timed),
        "mfu": median(known(line.mfu) for line in timed) if timed[0].mfu is not None else None,
        "peak_memory_bytes": timed[-1].peak_memory_bytes,
        "step_seconds": step_seconds,
        "non_padding_fraction": sum(line.tokens for line in timed)
        / sum(line.tokens / known(line.non_padding_fraction) for line in timed),
        "warm_up_seconds": sum(known(line.step_seconds) for line in warm_up) - WARM_UP_STEPS * step_seconds,
        "recompilations": (timed[-1].compiled_graphs or 0) - (warm_up[-1].compiled_graphs or 0),
        "skipped_steps": sum(bool(line.skipped) for line in lines),
        "losses": [line.loss for line in lines],
    }
    for part in ("data", "forward_backward", "optimizer"):
        row[f"{part}_seconds"] = median(getattr(line, f"{part}_seconds") for line in timed)
    if case.examples == 128:
        row["galpaca_run_hours"] = GALPACA_STEPS * step_seconds / 3_600
    return row


def free_memory(device: torch.device) -> None:
    """Forgets the last case: its tensors, its peak, and what the compiler made for it."""
    gc.collect()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
