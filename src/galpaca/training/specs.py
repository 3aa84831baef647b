"""Settings of training as plain records, cheap to import: a mistake in them is told before torch is loaded."""

import math
from dataclasses import dataclass

from galpaca.errors import Problems

SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class OptimizerSpec:
    """AdamW with warm-up and decay; the defaults are Stanford Alpaca's.

    Attributes:
        lr: peak learning rate.
        weight_decay: weight decay of matrices; biases and layer norms have none.
        beta1: decay rate of Adam's first moment.
        beta2: decay rate of Adam's second moment.
        eps: added to the root of the second moment, so that no update divides by 0.
        schedule: ``cosine``, ``linear`` (both to 0) or ``constant``, after the warm-up.
        warmup_ratio: share of the steps over which the rate rises from 0.
        clip_norm: bound of the global gradient norm; null leaves gradients alone.
        moments_dtype: of Adam's two moments: ``float32``, or ``bfloat16`` with stochastic rounding, which takes 4
            bytes a parameter less.
        fused: one kernel for the whole update, where the moments are float32; else a loop over tensors.
    """

    lr: float = 2e-5
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    schedule: str = "cosine"
    warmup_ratio: float = 0.03
    clip_norm: float | None = 1.0
    moments_dtype: str = "float32"
    fused: bool = True

    def __post_init__(self) -> None:
        problems = Problems()
        if not 0 < self.lr < math.inf:
            problems.add(f"a learning rate of {self.lr}", where="optim.lr", fix="a number above 0, for instance 2e-5")
        if not 0 <= self.weight_decay < math.inf:
            problems.add(f"a decay of {self.weight_decay}", where="optim.weight_decay", fix="0 for none, or above")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                problems.add(f"{getattr(self, name)} is no share", where=f"optim.{name}", fix="from 0 to below 1")
        if not 0 < self.eps < math.inf:
            problems.add(f"an epsilon of {self.eps}", where="optim.eps", fix="a number above 0, for instance 1e-8")
        problems.check_choice("optim.schedule", self.schedule, SCHEDULES)
        problems.check_choice("optim.moments_dtype", self.moments_dtype, ("float32", "bfloat16"))
        if not 0 <= self.warmup_ratio <= 1:
            problems.add(f"{self.warmup_ratio} is no share", where="optim.warmup_ratio", fix="a number from 0 to 1")
        if self.clip_norm is not None and not self.clip_norm > 0:
            problems.add(f"a bound of {self.clip_norm}", where="optim.clip_norm", fix="above 0, or null for none")
        problems.raise_any()


@dataclass(frozen=True)
class GuardSpec:
    """What happens where a loss or a gradient is not a finite number. The update is left out in any case.

    With 16-mixed the loss scaler leaves such updates out by itself, lowers its scale and goes on, up to ``max_skips``
    in a row.

    Attributes:
        on_non_finite: ``stop`` ends the run; ``skip`` goes on without the step; ``rollback`` goes back to the last
            checkpoint's weights and on with the next step, so that all steps in between count for nothing.
        max_skips: most steps that are skipped, or rollbacks, before the run stops.
        spike_factor: a loss of more than so many times the median of the last 50 steps is flagged as a spike; null
            flags none.
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
                f"a factor of {self.spike_factor}", where="guard.spike_factor", fix="above 1, or null for none"
            )
        problems.raise_any()


@dataclass(frozen=True)
class PrecisionSpec:
    """Number formats of a run.

    Attributes:
        name: ``32-true``, ``bf16-mixed``, ``16-mixed`` or ``64-true``, as Lightning calls them.
        reduce_dtype: in which FSDP sums gradients over ranks. Lightning's own choice would be the 16-bit format.
    """

    name: str = "32-true"
    reduce_dtype: str = "float32"

    def __post_init__(self) -> None:
        problems = Problems()
        problems.check_choice("precision.reduce_dtype", self.reduce_dtype, ("float32", "bfloat16", "float16"))
        problems.raise_any()
