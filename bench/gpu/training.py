"""One measurement: some optimizer steps by the project's own training path."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from statistics import fmean, median, stdev
from typing import Any

import lightning as L
import numpy as np
import torch
from transformers import OPTForCausalLM

from bench.figures import known
from bench.gpu.case import Case, memory_of
from bench.gpu.workload import MAX_LENGTH, PAD_ID, SHAPES, make_model
from bench.results import versions
from galpaca.data.examples import EncodedExamples
from galpaca.data.split import SplitExamples
from galpaca.estimate.gpus import dense_peak
from galpaca.model.attention import PACKED_ATTENTION, is_fast
from galpaca.model.compute import prepare_layers
from galpaca.model.compute_spec import compute_dtype
from galpaca.model.families.opt import OPT
from galpaca.model.parts import materialize_all
from galpaca.runs.lines import MetricsLine, StepLine
from galpaca.runs.shutdown import Shutdown
from galpaca.runs.spikes import LossSpikes
from galpaca.training.callbacks.metrics import StepMetrics
from galpaca.training.consensus import Consensus
from galpaca.training.datamodule import AlpacaDataModule
from galpaca.training.determinism import set_determinism
from galpaca.training.module import InstructionTuner
from galpaca.training.non_finite.policy import NonFinitePolicy
from galpaca.training.specs import BatchSpec, GuardSpec, PrecisionSpec, TrainerSpec
from galpaca.training.step_line import StepSpeed
from galpaca.training.strategies import Single
from galpaca.training.trainer import make_trainer

# The first compile, the second makes sizes dynamic, and the allocator settles.
WARM_UP_STEPS = 4
GALPACA_STEPS = 1_221
_STD = 0.02


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
    """Trains a few steps and returns a row of figures.

    Args:
        untimed_steps: further steps at the end, which no figure is taken from.
    """
    free_memory(device)
    before = _compiler_seconds()
    _, lines = train(case, examples, device, callbacks, num_steps=WARM_UP_STEPS + case.timed_steps + untimed_steps)
    compiled = _compiler_seconds()
    return _row(case, lines, None if compiled is None or before is None else compiled - before)


def train(
    case: Case,
    examples: EncodedExamples,
    device: torch.device,
    callbacks: Sequence[L.Callback] = (),
    *,
    num_steps: int,
    make_metrics: Callable[..., StepMetrics] = StepMetrics,
) -> tuple[OPTForCausalLM, list[StepLine]]:
    """The trained model, and the figures of its steps.

    Args:
        make_metrics: what reads the figures of the steps.
    """
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    set_determinism(accelerator, case.compute.deterministic)
    fast = is_fast(accelerator, case.precision, 0.0)
    model = _model(case, device, fast_attention=fast)
    spec = TrainerSpec(accelerator, max_epochs=num_steps, max_steps=num_steps, val_every_steps=num_steps)
    data = _data(case, examples, spec, pads=case.compute.compiles(fast))
    strategy, precision = Single().make(accelerator, PrecisionSpec(case.precision))
    peak = dense_peak(torch.cuda.get_device_name(device), case.precision) if device.type == "cuda" else None
    lines = _Lines()
    metrics = make_metrics(
        [lines],
        Consensus(Shutdown(), every_steps=WARM_UP_STEPS),
        steps_per_epoch=num_steps,
        speed=StepSpeed(OPT.architecture(model.config), peak, case.tuned),
        policy=(policy := NonFinitePolicy(GuardSpec())),
        spikes=LossSpikes(None),
    )
    tuner = InstructionTuner(model, case.optim, num_steps=num_steps, seed=0, guard=policy.guard, tuning=case.tuning)
    make_trainer(strategy, precision, spec, [*callbacks, metrics]).fit(tuner, datamodule=data)
    return model, lines.lines


def _model(case: Case, device: torch.device, *, fast_attention: bool) -> OPTForCausalLM:
    """What is trained, with random weights, on its device."""
    on_meta = torch.device("meta") if case.adapter_rank else device
    model = make_model(SHAPES[case.shape].config(case.dropout), on_meta)
    model.set_attn_implementation(PACKED_ATTENTION)
    prepare_layers(model, OPT, case.compute, fast_attention=fast_attention)
    if case.adapter_rank:  # a frozen model in 16 or 4 bits would not always fit in float32 before
        case.tuning.prepare(model, getattr(torch, compute_dtype(case.precision)))
        materialize_all(model, device)
        _fill_randomly(model)
    return model


def _fill_randomly(model: OPTForCausalLM) -> None:
    """Weights of the usual size; 4-bit codes are any, with scales that make them such weights."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                parameter.random_(0, 256)
            elif name.endswith(".scales"):
                parameter.fill_(_STD)
            elif parameter.ndim > 1:
                parameter.normal_(0.0, _STD)
            else:
                parameter.fill_(1.0 if "layer_norm.weight" in name else 0.0)


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


def _row(case: Case, lines: list[StepLine], compile_seconds: float | None) -> dict[str, Any]:
    """One case's figures. ``step_seconds`` is the median; memory is the most of all steps, warm-up included."""
    warm_up, timed = lines[:WARM_UP_STEPS], lines[WARM_UP_STEPS : WARM_UP_STEPS + case.timed_steps]
    seconds = [known(line.step_seconds) for line in timed]
    row: dict[str, Any] = {
        "name": case.name,
        **case.configuration(),
        "packages": versions(),
        "tokens_per_second": sum(line.tokens for line in timed) / sum(seconds),
        "mfu": median(known(line.mfu) for line in timed) if timed[0].mfu is not None else None,
        "peak_memory_bytes": timed[-1].peak_memory_bytes,
        "estimated_memory_bytes": memory_of(case).total,
        "step_seconds": median(seconds),
        "step_seconds_mean": fmean(seconds),
        "step_seconds_deviation": stdev(seconds) if len(seconds) > 1 else 0.0,
        "non_padding_fraction": sum(line.tokens for line in timed)
        / sum(line.tokens / known(line.non_padding_fraction) for line in timed),
        **_warm_up(warm_up, median(seconds), compile_seconds),
        "recompilations": (timed[-1].compiled_graphs or 0) - (warm_up[-1].compiled_graphs or 0),
        "skipped_steps": sum(bool(line.skipped) for line in lines),
        "losses": [line.loss for line in lines],
    }
    for part in ("data", "forward_backward", "optimizer"):
        row[f"{part}_seconds"] = median(getattr(line, f"{part}_seconds") for line in timed)
    if case.examples == 128:
        row["galpaca_run_hours"] = GALPACA_STEPS * row["step_seconds"] / 3_600
    return row


def _warm_up(lines: list[StepLine], step_seconds: float, compile_seconds: float | None) -> dict[str, float | None]:
    """What the first steps took beyond what later ones take: compiling, and all else (memory, kernels, libraries)."""
    beyond = sum(known(line.step_seconds) for line in lines) - len(lines) * step_seconds
    other = None if compile_seconds is None else beyond - compile_seconds
    return {"warm_up_seconds": beyond, "compile_seconds": compile_seconds, "other_warm_up_seconds": other}


def _compiler_seconds() -> float | None:
    """Seconds that this process has compiled for so far; None where torch does not say."""
    spent = getattr(torch._dynamo.utils, "calculate_time_spent", None)
    return None if spent is None else float(spent().get("total_wall_time", 0.0))


def free_memory(device: torch.device) -> None:
    """Forgets the last case: its tensors, its peak, and what the compiler made for it."""
    gc.collect()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
