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
        strategy: ``single``, ``ddp``, ``fsdp`` or ``fsdp2``.
        max_tokens: budget of a micro-batch.
        recompute: activation checkpointing.
        compiled: layers compiled, micro-batches padded, one attention call over all examples.
        arithmetic: ``float32``; ``scaled``, the same under a loss scaler; or ``float16``, mixed precision.
        sharding: of fsdp.
        reshard: whether fsdp2 drops gathered weights after forward.
    """

    num_ranks: int
    strategy: str
    max_tokens: int = 64
    recompute: str = "none"
    compiled: bool = False
    arithmetic: str = "float32"
    sharding: str = "FULL_SHARD"
    reshard: bool = True

    @property
    def name(self) -> str:
        default = Way(self.num_ranks, self.strategy)
        words = [str(self.num_ranks), self.strategy]
        for field in ("max_tokens", "recompute", "compiled", "arithmetic", "sharding", "reshard"):
            if getattr(self, field) != getattr(default, field):
                words.append(f"{field}={getattr(self, field)}")
        return "-".join(words)

    @property
    def tolerance(self) -> float:
        return FLOAT16_TOLERANCE if self.arithmetic == "float16" else FLOAT32_TOLERANCE


SHARDED = ("fsdp", "fsdp2")
SEVERAL = ("ddp", *SHARDED)

# One micro-batch, whose gradients ranks sum just once.
REDUCED_ONCE = [Way(2, strategy, max_tokens=10_000, arithmetic="float16") for strategy in SHARDED]
WAYS = [
    *(Way(1, "single", max_tokens=budget) for budget in (40, 100, 10_000)),
    *(Way(1, "single", recompute=how) for how in ("selective", "full")),
    *(Way(1, "single", arithmetic=how) for how in ("scaled", "float16")),
    Way(1, "single", compiled=True),
    *(Way(1, strategy) for strategy in SHARDED),
    *(Way(ranks, strategy) for ranks in (2, 4) for strategy in SEVERAL),
    *(Way(2, strategy, recompute=how) for strategy in SEVERAL for how in ("selective", "full")),
    *(Way(ranks, strategy, arithmetic="scaled") for ranks in (2, 4) for strategy in SEVERAL),
    *(Way(2, strategy, arithmetic="float16") for strategy in SEVERAL),
    *REDUCED_ONCE,
    *(Way(2, strategy, compiled=True) for strategy in SEVERAL),
    *(Way(2, one, compiled=True, recompute=how) for one in SHARDED for how in ("selective", "full")),
    Way(2, "fsdp", sharding="SHARD_GRAD_OP"),
    Way(2, "fsdp2", reshard=False),
    Way(2, "fsdp2", reshard=False, compiled=True),
    *(Way(4, strategy, max_tokens=10_000) for strategy in SHARDED),
]
