"""One way to train on one kind of machine: what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from galpaca.app.estimate.run_time import run_time
from galpaca.app.estimate.setting import Setting
from galpaca.app.train.disk_need import disk_need
from galpaca.errors import InputError
from galpaca.estimate.duration import RunTime
from galpaca.estimate.memory import Fullest, MemoryParts, step_memory
from galpaca.estimate.timeline import Kind
from galpaca.runs.folder import RunFolder

Verdict = Literal["fits", "tight", "does not fit"]

_GIB = 1 << 30
# Of a card's memory, above which an estimate that nobody has measured says little.
_TIGHT = 0.9
# Of a process, besides what it keeps for checkpoints or of an optimizer's state.
_PROCESS_BYTES = 4 * _GIB
# A whole run may be as much faster or slower than arithmetic says, where nothing was measured.
_FASTER, _SLOWER = 0.75, 1.7


@dataclass(frozen=True)
class Candidate(Setting):
    """A setting with what it takes, computed when it is asked for.

    Attributes:
        traced: memory as a trace has counted it, instead of the closed form.
    """

    traced: MemoryParts | None = None

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
        # What is gathered is narrow in any case, and beside frozen weights the stream is wide.
        is_narrow = config.precision.half_residual and not self.sharding.gathers and self.model.held.trains_all
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
        return step_memory(self.kind, self.model, fullest, self.sharding)

    @property
    def verdict(self) -> Verdict:
        share = self.memory.total / (self.cluster.gpu.memory_gib * _GIB)
        return "fits" if share <= _TIGHT else "tight" if share <= 1 else "does not fit"

    @property
    def host_bytes(self) -> float:
        """Of a node."""
        config, devices = self.config, self.cluster.devices
        state = config.optim.factory.host_state_bytes(config.precision.weight_dtype) * self.model.num_trained
        copies = self.checkpoint_bytes / self.cluster.num_nodes if config.checkpoint.asynchronous else 0.0
        return devices * _PROCESS_BYTES + copies + state * self.sharding.models_per_node(devices)

    @property
    def disk_bytes(self) -> float:
        folder = RunFolder(Path(self.config.run.root), self.config.run.name)
        steps, trained = self.planned.num_steps, self.model.num_trained
        return disk_need(folder, self.config, steps, self.num_parameters, trained).total_bytes

    @cached_property
    def run_time(self) -> RunTime:
        """Of the whole run, by part."""
        return run_time(self)

    @property
    def hours(self) -> tuple[float, float]:
        """Lowest and highest."""
        total = self.run_time.total / 3600
        return _FASTER * total, _SLOWER * total

    @property
    def gpu_hours(self) -> tuple[float, float]:
        low, high = self.hours
        return low * self.cluster.num_ranks, high * self.cluster.num_ranks
