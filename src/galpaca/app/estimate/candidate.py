"""One way to train on one kind of machine: what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from galpaca.app.config.schema import Config
from galpaca.app.estimate.shape import architecture_of, described_model
from galpaca.app.estimate.steps import PlannedRun
from galpaca.app.train.disk_need import checkpoint_bytes, disk_need
from galpaca.data.alpaca_lengths import NUM_EXAMPLES
from galpaca.errors import InputError
from galpaca.estimate.duration import RunTime, checkpoints_seconds
from galpaca.estimate.flops import Architecture
from galpaca.estimate.memory import (
    HOST_MOMENTS_ROOM_BYTES,
    Fullest,
    MemoryParts,
    TrainedModel,
    num_parameters,
    step_memory,
)
from galpaca.estimate.speed import Cluster, Work
from galpaca.estimate.timeline import Kind
from galpaca.runs.folder import RunFolder
from galpaca.training.optimizers.factory import dtype_bytes
from galpaca.training.specs import steps_between_validations

Verdict = Literal["fits", "tight", "does not fit"]

_GIB = 1 << 30
# Of a card's memory, above which an estimate that nobody has measured says little.
_TIGHT = 0.9
# Seconds and bytes per second that differ between machines more than anything else; nobody has measured these.
_START_SECONDS, _COMPILE_SECONDS = 45.0, 60.0
_READ_BYTES_PER_SECOND, _WRITE_BYTES_PER_SECOND, _TO_HOST_BYTES_PER_SECOND = 1.5e9, 1.0e9, 10e9
# Of a process, besides what it keeps for checkpoints or of an optimizer's state.
_PROCESS_BYTES = 4 * _GIB
# Of an answer at least, whatever the model.
_TOKEN_SECONDS = 0.03
# A whole run may be as much faster or slower than arithmetic says, where nothing was measured.
_FASTER, _SLOWER = 0.75, 1.7


@dataclass(frozen=True)
class Candidate:
    """A configuration on cards and nodes; what it takes is computed when it is asked for.

    Attributes:
        config: as composed, with the number of devices and nodes of ``cluster``.
        content: of the model's ``config.json``.
        num_records: of the run's data.
        traced: memory as a trace has counted it, instead of the closed form.
    """

    config: Config
    cluster: Cluster
    content: dict[str, Any]
    num_records: int = NUM_EXAMPLES
    traced: MemoryParts | None = None

    @classmethod
    def of(cls, config: Config, cluster: Cluster, num_records: int | None = None) -> Candidate:
        """A configuration on a cluster.

        Args:
            num_records: of the run's data; by default as many as it expects, or Alpaca's.

        Raises:
            InputError: as ``described_model``, ``Config.on`` and a strategy's checks do; or it trains on a CPU.
        """
        if config.trainer.accelerator != "gpu":
            raise InputError("estimates are of GPUs, and the run trains on a CPU", where="trainer", fix="trainer=gpu")
        content, family = described_model(config.model)
        trainer = replace(config.trainer, devices=cluster.devices, num_nodes=cluster.num_nodes)
        bound = replace(config, trainer=trainer).on(family)
        bound.strategy.factory.check_layout(cluster.devices, cluster.num_nodes)
        bound.strategy.factory.check_tuning(bound.tuning.method)
        return cls(bound, cluster, content, num_records or config.data.expected_records or NUM_EXAMPLES)

    @cached_property
    def architecture(self) -> Architecture:
        return architecture_of(self.content, self.config.tuning.method.family)

    @property
    def fast_attention(self) -> bool:
        """As ``Config.fast_attention`` on this card, without asking torch."""
        is_half = self.config.precision.name in ("16-mixed", "bf16-mixed")
        return is_half and self.cluster.gpu.is_fast and self.config.model.attention_dropout == 0

    @cached_property
    def model(self) -> TrainedModel:
        method, factory = self.config.tuning.method, self.config.optim.factory
        dtype = self.config.precision.weight_dtype
        on_host = factory.host_state_bytes(dtype)
        return TrainedModel(
            self.architecture,
            method.held,
            int(getattr(method, "rank", 0)),
            state_bytes=factory.state_bytes(dtype) - on_host,
            room_bytes=HOST_MOMENTS_ROOM_BYTES if on_host else 0.0,
        )

    @cached_property
    def planned(self) -> PlannedRun:
        is_padded = self.config.compute.compiles(self.fast_attention)
        return PlannedRun.of(self.config, self.cluster.num_ranks, self.num_records, is_padded=is_padded)

    @cached_property
    def kind(self) -> Kind:
        """Of the memory's way up and down.

        Raises:
            InputError: nobody has counted such a way.
        """
        config = self.config
        strategy, tuning = config.strategy.factory.timeline, config.tuning.method.timeline
        if (reasons := list(self._not_counted())) or not strategy or not tuning:
            can_trace = self.cluster.gpu.is_fast
            raise InputError(
                f"memory of such a step was not counted: {', '.join(reasons)}",
                where="galpaca estimate",
                fix="add --trace, which counts it in a minute or two" if can_trace else "another --gpu",
            )
        is_narrow = config.precision.half_residual and strategy in ("single", "ddp") and tuning == "full"
        family = config.tuning.method.family.model_type
        stream = "narrow" if is_narrow else "wide"
        return Kind(family, strategy, tuning, stream, config.compute.activation_checkpointing)

    def _not_counted(self) -> Iterator[str]:
        """Why nobody has counted what comes and goes."""
        config, gpu = self.config, self.cluster.gpu
        if not gpu.is_fast:
            yield f"a {gpu.name} is of compute capability {gpu.capability:g}, and attends to one example at a time"
        if config.precision.name not in ("16-mixed", "bf16-mixed"):
            yield f"precision={config.precision.name} is none of 16 bits"
        if config.model.attention_dropout:
            yield "model.attention_dropout is not 0"
        if not config.compute.compiles(True) or config.compute.compile_backend != "inductor":
            yield "layers are not compiled by inductor"
        if config.strategy.factory.timeline is None:
            yield f"strategy={config.strategy.factory.name} with these settings"
        if config.tuning.method.timeline is None:
            yield "the tuning method"

    @cached_property
    def fullest(self) -> Fullest:
        """Of the micro-batches that were looked at, the one that takes most."""
        return max(self.planned.fullest(), key=lambda one: self._memory_of(one).total)

    @cached_property
    def likely_fullest(self) -> Fullest:
        """The same; by its tokens where nobody has counted this way to train."""
        try:
            return self.fullest
        except InputError:
            return self.planned.fullest()[0]

    @cached_property
    def memory(self) -> MemoryParts:
        """Raises ``InputError`` where it was neither traced nor is of a kind that was counted."""
        return self.traced or self._memory_of(self.fullest)

    def _memory_of(self, fullest: Fullest) -> MemoryParts:
        trainer = self.config.trainer
        sharding = self.config.strategy.factory.sharding(trainer.devices, trainer.num_nodes)
        return step_memory(self.kind, self.model, fullest, sharding)

    @property
    def verdict(self) -> Verdict:
        share = self.memory.total / (self.cluster.gpu.memory_gib * _GIB)
        return "fits" if share <= _TIGHT else "tight" if share <= 1 else "does not fit"

    @property
    def checkpoint_bytes(self) -> int:
        """Of all ranks together: weights and moments of what is trained."""
        return checkpoint_bytes(self.config, self.model.num_trained)

    @property
    def save_seconds(self) -> float:
        """Until a checkpoint is on disk: copied to the host, and written by all nodes at once."""
        return self._stall_seconds + self._write_seconds

    @property
    def _stall_seconds(self) -> float:
        return self.checkpoint_bytes / self.cluster.num_ranks / _TO_HOST_BYTES_PER_SECOND

    @property
    def _write_seconds(self) -> float:
        return self.checkpoint_bytes / (_WRITE_BYTES_PER_SECOND * self.cluster.num_nodes)

    @property
    def checkpoint_every_steps(self) -> int | None:
        """An interval in which one checkpoint is written before the next; None where that is so."""
        every = self.config.checkpoint.every_steps
        if every is None or every * self.step_seconds >= self._write_seconds:
            return None
        needed = 2 * self._write_seconds / self.step_seconds
        return min(self.planned.num_steps, -(-int(needed) // 50) * 50)

    @property
    def host_bytes(self) -> float:
        """Of a node."""
        trainer, config = self.config.trainer, self.config
        sharding = config.strategy.factory.sharding(trainer.devices, trainer.num_nodes)
        state = config.optim.factory.host_state_bytes(config.precision.weight_dtype) * self.model.num_trained
        copies = self.checkpoint_bytes / trainer.num_nodes if config.checkpoint.asynchronous else 0.0
        return trainer.devices * _PROCESS_BYTES + copies + state * sharding.models_per_node(trainer.devices)

    @property
    def disk_bytes(self) -> float:
        folder = RunFolder(Path(self.config.run.root), self.config.run.name)
        steps, trained = self.planned.num_steps, self.model.num_trained
        return disk_need(folder, self.config, steps, self._base_parameters, trained).total_bytes

    @property
    def _base_parameters(self) -> int:
        return num_parameters(self.architecture)

    @cached_property
    def work(self) -> Work:
        config, trainer = self.config, self.config.trainer
        return Work(
            self.model,
            config.strategy.factory.sharding(trainer.devices, trainer.num_nodes),
            self.cluster,
            config.tuning.method.flops_per_weight,
            config.compute.activation_checkpointing,
            config.precision.name,
            config.optim.factory.host_state_bytes(config.precision.weight_dtype),
            float(dtype_bytes(config.precision.reduce_dtype)),
        )

    @cached_property
    def step_seconds(self) -> float:
        """The mean one."""
        loads = self.planned.even_loads
        return sum(self.work.step_seconds(step) for step in loads) / len(loads)

    @cached_property
    def run_time(self) -> RunTime:
        """Of the whole run, by part."""
        config, steps, per_epoch = self.config, self.planned.num_steps, self.planned.plan.steps_per_epoch
        saving = config.checkpoint
        between = steps_between_validations(config.trainer, saving, per_epoch)
        count = self._num_checkpoints
        return RunTime(
            start=_START_SECONDS + 2.0 * self._base_parameters / _READ_BYTES_PER_SECOND,
            warm_up=_COMPILE_SECONDS if config.compute.compiles(self.fast_attention) else 0.0,
            steps=steps * self.step_seconds,
            checkpoints=checkpoints_seconds(
                count,
                steps * self.step_seconds / count,
                stall=self._stall_seconds if saving.asynchronous else self.save_seconds,
                write=self._write_seconds if saving.asynchronous else 0.0,
                last=self.save_seconds,
            ),
            validations=-(-steps // between) * self._validation_seconds(),
            samples=self._samples_seconds(),
            release=self._base_parameters * dtype_bytes(config.release.dtype) / _WRITE_BYTES_PER_SECOND,
        )

    @property
    def _num_checkpoints(self) -> int:
        """By steps, epochs and minutes, and the last one."""
        saving, steps = self.config.checkpoint, self.planned.num_steps
        count = 1
        if saving.every_steps:
            count += (steps - 1) // saving.every_steps
        if saving.every_epoch:
            count += (steps - 1) // self.planned.plan.steps_per_epoch
        if saving.every_minutes:
            count = max(count, int(steps * self.step_seconds / 60 / saving.every_minutes))
        return count

    def _validation_seconds(self) -> float:
        """A forward over the held-out records: a third of what a step takes for each token."""
        held_out = self.config.data.val_fraction * self.num_records
        return held_out / self.config.batch.examples * self.step_seconds / 3

    def _samples_seconds(self) -> float:
        """Every token of an answer is a forward of few tokens, which reads all weights, or gathers them."""
        samples, steps = self.config.samples, self.planned.num_steps
        if samples.prompts is None:
            return 0.0
        every = samples.every_steps or self.planned.plan.steps_per_epoch
        times = 1 + -(-steps // every)  # before the first step, and after the last
        reads = self.model.weight_bytes / (self.cluster.gpu.gb_per_second * 1e9)
        return times * samples.max_new_tokens * max(4 * reads, self.work.gather_seconds(), _TOKEN_SECONDS)

    @property
    def hours(self) -> tuple[float, float]:
        """Lowest and highest."""
        total = self.run_time.total / 3600
        return _FASTER * total, _SLOWER * total

    @property
    def gpu_hours(self) -> tuple[float, float]:
        low, high = self.hours
        return low * self.cluster.num_ranks, high * self.cluster.num_ranks
