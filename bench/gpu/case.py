"""One measurement's configuration, and the arithmetic of whether a card can hold it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bench.gpu.workload import SHAPES, VOCAB_SIZE
from galpaca.estimate.flops import Architecture, Tuned
from galpaca.estimate.memory import (
    HOST_MOMENTS_ROOM_BYTES,
    Fullest,
    MemoryParts,
    TrainedModel,
    num_adapter_weights,
    step_memory,
)
from galpaca.estimate.timeline import Kind
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.tuning.full import FullTuning
from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.method import TuningMethod
from galpaca.training.specs import OptimizerSpec

_GIB = 1 << 30


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
    tuning: TuningMethod = field(default_factory=FullTuning)

    @property
    def adapter_rank(self) -> int:
        """Width of the adapters; 0 where there are none."""
        return self.tuning.rank if isinstance(self.tuning, Lora) else 0

    @property
    def tuned(self) -> Tuned:
        """What decides the operations of a step."""
        adapters = num_adapter_weights(architecture(self.shape), self.adapter_rank)
        return Tuned(self.tuning.flops_per_weight, adapters)

    def configuration(self) -> dict[str, Any]:
        """All that the case says, for its row of results."""
        return {
            "shape": self.shape,
            "precision": self.precision,
            "compute": asdict(self.compute),
            "optim": {**asdict(self.optim), "factory": self.optim.factory.describe()},
            "tuning": self.tuning.describe(),
            "examples": self.examples,
            "max_tokens": self.max_tokens,
            "timed_steps": self.timed_steps,
            "dropout": self.dropout,
        }


def architecture(shape: str) -> Architecture:
    sizes = SHAPES[shape]
    return Architecture(sizes.num_layers, sizes.hidden_size, 4 * sizes.hidden_size, VOCAB_SIZE)


def memory_of(case: Case) -> MemoryParts:
    """The estimate of what a case takes on one GPU at its fullest, bytes; not measured on a card yet."""
    factory = case.optim.factory
    on_host = factory.host_state_bytes("float32")
    model = TrainedModel(
        architecture(case.shape),
        case.tuning.held,
        case.adapter_rank,
        state_bytes=factory.state_bytes("float32") - on_host,
        room_bytes=HOST_MOMENTS_ROOM_BYTES if on_host else 0.0,
    )
    kind = Kind("opt", "single", case.tuning.timeline or "", "wide", case.compute.activation_checkpointing)
    return step_memory(kind, model, Fullest.of(case.max_tokens))


def lack_of_memory(case: Case, card_bytes: int) -> str | None:
    """Why a card cannot hold a case, with the arithmetic; None if it can."""
    parts = memory_of(case)
    if parts.total <= card_bytes:
        return None
    terms = [(name, value) for name, value in asdict(parts).items() if value >= _GIB / 10]
    terms.sort(key=lambda term: -term[1])
    shown = " + ".join(f"{name.replace('_', ' ')} {value / _GIB:.1f}" for name, value in terms)
    return f"needs {parts.total / _GIB:.0f} GiB of {card_bytes / _GIB:.0f} (estimate, GiB: {shown})"
