"""Training settings as plain dataclasses, cheap to import: errors in them are reported before torch is loaded."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from galpaca.errors import Problems
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.optimizers.factory import OptimizerFactory

SCHEDULES = ("cosine", "linear", "constant")
# Marks a field whose keys lie beside those of its record, with the ``_target_`` that says which they are.
TARGET: Mapping[str, Any] = {"target": True}


@dataclass(frozen=True)
class OptimizerSpec:
    """Learning rate and clipping, whatever the optimizer; the defaults are Stanford Alpaca's.

    Attributes:
        lr: peak learning rate.
        schedule: ``cosine``, ``linear`` (both to 0) or ``constant``, after the warm-up.
        warmup_ratio: fraction of the steps over which the learning rate rises from 0.
        clip_norm: maximum global gradient norm; null disables clipping.
        factory: the optimizer: what ``optim._target_`` names, with the further keys of the group.
    """

    lr: float = 2e-5
    schedule: str = "cosine"
    warmup_ratio: float = 0.03
    clip_norm: float | None = 1.0
    factory: OptimizerFactory = field(default_factory=AdamW, metadata=TARGET)

    def __post_init__(self) -> None:
        problems = Problems()
        if not 0 < self.lr < math.inf:
            problems.add(f"must be > 0, got {self.lr}", where="optim.lr", fix="e.g. optim.lr=2e-5")
        problems.check_choice("optim.schedule", self.schedule, SCHEDULES)
        if not 0 <= self.warmup_ratio <= 1:
            problems.add(
                f"must be in [0, 1], got {self.warmup_ratio}",
                where="optim.warmup_ratio",
                fix="e.g. optim.warmup_ratio=0.03",
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            problems.add(
                f"must be > 0, got {self.clip_norm}",
                where="optim.clip_norm",
                fix="optim.clip_norm=null disables clipping",
            )
        problems.raise_any()

    def values(self) -> dict[str, Any]:
        """The keys of the group ``optim`` and their values."""
        return {**self._own(), "_target_": self.factory.target(), **asdict(self.factory)}

    def recipe(self) -> dict[str, Any]:
        """Those that decide the trained weights. AdamW is not named, as it was not when there was no other."""
        target = self.factory.target()
        named = {} if target == AdamW.target() else {"_target_": target}
        return {**self._own(), **named, **self.factory.recipe()}

    def _own(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self) if "target" not in item.metadata}


@dataclass(frozen=True)
class GuardSpec:
    """What to do when a loss or gradient is not finite. The update is skipped in any case.

    With 16-mixed the loss scaler itself skips such updates, lowers its scale and continues, up to ``max_skips`` in a
    row.

    Attributes:
        on_non_finite: ``stop`` ends the run; ``skip`` continues without the step; ``rollback`` restores the last
            checkpoint's weights and continues with the next step, so that the updates in between are lost.
        max_skips: most skipped steps or rollbacks before the run stops.
        spike_factor: a loss above this many times the median of the last 50 steps is flagged as a spike; null
            disables the flag.
    """

    on_non_finite: str = "stop"
    max_skips: int = 25
    spike_factor: float | None = 2.0

    def __post_init__(self) -> None:
        problems = Problems()
        problems.check_choice("guard.on_non_finite", self.on_non_finite, ("stop", "skip", "rollback"))
        problems.check_at_least_one("guard", {"max_skips": self.max_skips})
        if self.spike_factor is not None and not 1 < self.spike_factor < math.inf:
            problems.add(
                f"must be > 1, got {self.spike_factor}", where="guard.spike_factor", fix="null disables the flag"
            )
        problems.raise_any()


@dataclass(frozen=True)
class PrecisionSpec:
    """Number formats of a run.

    Attributes:
        name: ``32-true``, ``bf16-mixed``, ``16-mixed`` or ``64-true``, as Lightning calls them.
        reduce_dtype: dtype in which FSDP reduces gradients over ranks; Lightning's default is the 16-bit dtype.
    """

    name: str = "32-true"
    reduce_dtype: str = "float32"

    def __post_init__(self) -> None:
        problems = Problems()
        problems.check_choice("precision.reduce_dtype", self.reduce_dtype, ("float32", "bfloat16", "float16"))
        problems.raise_any()

    @property
    def weight_dtype(self) -> str:
        """Dtype of the trained weights."""
        return "float64" if self.name == "64-true" else "float32"
