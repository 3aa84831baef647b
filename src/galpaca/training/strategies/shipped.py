"""The strategies of the group ``strategy``: settings and checks; torch is loaded where one is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from galpaca.errors import InputError, Problems
from galpaca.estimate.sharding import Sharding
from galpaca.training.strategies.factory import StrategyFactory

if TYPE_CHECKING:
    from lightning.pytorch.plugins.precision import Precision

    from galpaca.model.tuning.method import TuningMethod
    from galpaca.training.specs import PrecisionSpec
    from galpaca.training.strategies.step_strategy import StepStrategy

FULL, GRADIENTS, HYBRID, WHOLE = SHARDINGS = ("FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD", "NO_SHARD")
PREFETCHES = ("BACKWARD_PRE", "BACKWARD_POST")


class _Shipped(StrategyFactory):
    """One that configurations name by its place in the package and a short name."""

    @classmethod
    def target(cls) -> str:
        return f"{__package__}.{cls.__name__.lower()}"

    @property
    def timeline(self) -> str | None:
        return self.name


@dataclass(frozen=True)
class Single(_Shipped):
    """One device."""

    max_ranks: ClassVar[int | None] = 1

    def make(self, accelerator: str, precision: PrecisionSpec) -> tuple[StepStrategy, Precision]:
        from galpaca.training.precision import plain_precision
        from galpaca.training.strategies.whole_model import SingleDevice

        return SingleDevice(accelerator), plain_precision(self.name, accelerator, precision)

    def sharding(self, devices: int, num_nodes: int) -> Sharding:
        return Sharding()


@dataclass(frozen=True)
class Ddp(_Shipped):
    """A whole model on every rank; gradients averaged."""

    def make(self, accelerator: str, precision: PrecisionSpec) -> tuple[StepStrategy, Precision]:
        from galpaca.training.precision import plain_precision
        from galpaca.training.strategies.whole_model import DataParallel

        return DataParallel(), plain_precision(self.name, accelerator, precision)

    def sharding(self, devices: int, num_nodes: int) -> Sharding:
        return Sharding(num_copies=devices * num_nodes)


class _Sharded(_Shipped):
    """What both ways to shard have in common."""

    @property
    def timeline(self) -> str | None:
        sharding = self.sharding(2, 1)
        if not sharding.gathers:
            return None
        return f"{self.name} keeps gathered" if sharding.keeps_gathered else self.name

    def _check_precision(self, precision: PrecisionSpec) -> None:
        from galpaca.training.precision import refused

        names = ("32-true", "bf16-mixed", "16-mixed")
        if precision.name not in names:
            raise refused(self.name, precision.name, names)


@dataclass(frozen=True)
class Fsdp(_Sharded):
    """Everything sharded over ranks.

    Attributes:
        sharding_strategy: ``FULL_SHARD``; ``SHARD_GRAD_OP`` keeps gathered weights between forward and backward, for
            less talk and more memory; ``HYBRID_SHARD`` shards within a node and copies between nodes; ``NO_SHARD``.
        backward_prefetch: gathers the next layer's weights during backward before (``BACKWARD_PRE``) or after
            (``BACKWARD_POST``) this layer's gradients are computed; null waits.
        forward_prefetch: gathers the next layer's weights from the host earlier in forward.
        limit_all_gathers: keeps at most two layers' weights in flight.
    """

    sharding_strategy: str = FULL
    backward_prefetch: str | None = "BACKWARD_PRE"
    forward_prefetch: bool = False
    limit_all_gathers: bool = True

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_choice("strategy.sharding_strategy", self.sharding_strategy, SHARDINGS)
            problems.check_choice("strategy.backward_prefetch", self.backward_prefetch, PREFETCHES)

    def make(self, accelerator: str, precision: PrecisionSpec) -> tuple[StepStrategy, Precision]:
        self._check_precision(precision)
        import torch

        from galpaca.training.precision import ShardedPrecision, device_type
        from galpaca.training.strategies.fully_sharded import FullySharded

        strategy = FullySharded(getattr(torch, precision.reduce_dtype), **asdict(self))
        return strategy, ShardedPrecision(precision.name, device_type(accelerator))

    def sharding(self, devices: int, num_nodes: int) -> Sharding:
        num_ranks = devices * num_nodes
        num_shards = {WHOLE: 1, HYBRID: devices}.get(self.sharding_strategy, num_ranks)
        return Sharding(
            num_shards,
            num_ranks // num_shards,
            gathers=self.sharding_strategy != WHOLE,
            keeps_gathered=self.sharding_strategy == GRADIENTS,
            sums_each_micro_batch=True,
        )

    def check_layout(self, devices: int, num_nodes: int) -> None:
        if self.sharding_strategy == HYBRID and devices == 1 and num_nodes > 1:
            raise InputError(
                "HYBRID_SHARD shards within a node, but each node has only one process",
                where="strategy.sharding_strategy",
                fix="strategy=ddp (a copy per node), or strategy.sharding_strategy=FULL_SHARD (shards over all nodes)",
            )

    def check_tuning(self, tuning: TuningMethod) -> None:
        if tuning.mixes_dtypes:
            raise InputError(
                "strategy=fsdp cannot shard frozen weights together with adapters",
                where="strategy",
                why="it flattens each layer into one tensor, and theirs are of different dtypes",
                fix="strategy=fsdp2 for several GPUs, strategy=single for one, strategy=ddp for a copy on each",
            )

    def speed_advice(self, num_nodes: int) -> list[str]:
        is_spread = num_nodes > 1 and self.sharding_strategy == FULL
        return ["strategy.sharding_strategy=HYBRID_SHARD"] if is_spread else []

    def memory_advice(self, num_ranks: int, tuning: TuningMethod) -> list[str]:
        shards_all = self.sharding_strategy == FULL
        return [
            *([] if shards_all else ["strategy.sharding_strategy=FULL_SHARD (more communication)"]),
            f"more GPUs than {num_ranks}: trainer.devices, trainer.num_nodes",
        ]


@dataclass(frozen=True)
class Fsdp2(_Sharded):
    """Everything sharded over ranks, by torch's ``fully_shard``.

    Attributes:
        hybrid: shards within a node and copies between nodes.
        reshard_after_forward: drops a layer's gathered weights after forward; false keeps them for backward, for less
            talk and more memory.
    """

    hybrid: bool = False
    reshard_after_forward: bool = True

    def make(self, accelerator: str, precision: PrecisionSpec) -> tuple[StepStrategy, Precision]:
        self._check_precision(precision)
        import torch

        from galpaca.training.precision import HALF_DTYPES, ShardedPrecision, device_type
        from galpaca.training.strategies.fully_sharded2 import FullySharded2

        dtypes = HALF_DTYPES.get(precision.name), getattr(torch, precision.reduce_dtype)
        return FullySharded2(*dtypes, **asdict(self)), ShardedPrecision(precision.name, device_type(accelerator))

    def sharding(self, devices: int, num_nodes: int) -> Sharding:
        num_ranks = devices * num_nodes
        num_shards = devices if self.hybrid else num_ranks
        return Sharding(
            num_shards, num_ranks // num_shards, gathers=True, keeps_gathered=not self.reshard_after_forward
        )

    def check_layout(self, devices: int, num_nodes: int) -> None:
        if self.hybrid and devices == 1 and num_nodes > 1:
            raise InputError(
                "shards lie within a node, but each node has only one process",
                where="strategy.hybrid",
                fix="strategy=ddp (a copy per node), or strategy.hybrid=false (shards over all nodes)",
            )

    def speed_advice(self, num_nodes: int) -> list[str]:
        return ["strategy.hybrid=true"] if num_nodes > 1 and not self.hybrid else []

    def memory_advice(self, num_ranks: int, tuning: TuningMethod) -> list[str]:
        return [
            *(["strategy.hybrid=false (more communication between nodes)"] if self.hybrid else []),
            *([] if self.reshard_after_forward else ["strategy.reshard_after_forward=true (more communication)"]),
            f"more GPUs than {num_ranks}: trainer.devices, trainer.num_nodes",
        ]
