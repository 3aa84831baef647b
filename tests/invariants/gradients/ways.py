"""The ways in which a step's gradient is computed, and how near each must come to the reference."""

from dataclasses import dataclass

# Relative to the largest gradient of the step, against one example at a time in float64. Fixed.
FLOAT32_TOLERANCE = 5e-6
FLOAT16_TOLERANCE = 2e-2


@dataclass(frozen=True)
class Way:
    """One way.

    Attributes:
        num_ranks: processes.
        strategy: ``single``, ``ddp`` or ``fsdp``.
        max_tokens: budget of a micro-batch.
        recompute: activation checkpointing.
        compiled: layers compiled, micro-batches padded, one attention call over all examples.
        arithmetic: ``float32``; ``scaled``, the same under a loss scaler; or ``float16``, mixed precision.
        sharding: of fsdp.
    """

    num_ranks: int
    strategy: str
    max_tokens: int = 64
    recompute: str = "none"
    compiled: bool = False
    arithmetic: str = "float32"
    sharding: str = "FULL_SHARD"

    @property
    def name(self) -> str:
        default = Way(self.num_ranks, self.strategy)
        words = [str(self.num_ranks), self.strategy]
        for field in ("max_tokens", "recompute", "compiled", "arithmetic", "sharding"):
            if getattr(self, field) != getattr(default, field):
                words.append(f"{field}={getattr(self, field)}")
        return "-".join(words)

    @property
    def tolerance(self) -> float:
        return FLOAT16_TOLERANCE if self.arithmetic == "float16" else FLOAT32_TOLERANCE


WAYS = [
    *(Way(1, "single", max_tokens=budget) for budget in (40, 100, 10_000)),
    *(Way(1, "single", recompute=how) for how in ("selective", "full")),
    *(Way(1, "single", arithmetic=how) for how in ("scaled", "float16")),
    Way(1, "single", compiled=True),
    Way(1, "fsdp"),
    *(Way(ranks, strategy) for ranks in (2, 4) for strategy in ("ddp", "fsdp")),
    *(Way(2, strategy, recompute=how) for strategy in ("ddp", "fsdp") for how in ("selective", "full")),
    *(Way(ranks, strategy, arithmetic="scaled") for ranks in (2, 4) for strategy in ("ddp", "fsdp")),
    *(Way(2, strategy, arithmetic="float16") for strategy in ("ddp", "fsdp")),
    *(Way(2, strategy, compiled=True) for strategy in ("ddp", "fsdp")),
    *(Way(2, "fsdp", compiled=True, recompute=how) for how in ("selective", "full")),
    Way(2, "fsdp", sharding="SHARD_GRAD_OP"),
    Way(4, "fsdp", max_tokens=10_000),
]
