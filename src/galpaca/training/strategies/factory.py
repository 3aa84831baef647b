"""What a run needs to know of a strategy before there is one; cheap to import."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from galpaca.estimate.sharding import Sharding

if TYPE_CHECKING:
    from lightning.pytorch.plugins.precision import Precision

    from galpaca.model.tuning.method import TuningMethod
    from galpaca.training.specs import PrecisionSpec
    from galpaca.training.strategies.step_strategy import StepStrategy


@dataclass(frozen=True)
class StrategyFactory(ABC):
    """How processes share a model: the settings of a strategy, and how to make it.

    A subclass is a frozen dataclass. Its fields are the keys of the group ``strategy``; it checks them in
    ``__post_init__``. Its module imports torch in ``make`` only, so that a mistake in the configuration is reported
    before torch is loaded, and an estimate needs none.

    Attributes:
        max_ranks: most processes that it can be of; None for any number.
    """

    max_ranks: ClassVar[int | None] = None

    @abstractmethod
    def make(self, accelerator: str, precision: PrecisionSpec) -> tuple[StepStrategy, Precision]:
        """The strategy, and the precision that goes with it.

        Raises:
            InputError: it does not support the precision.
        """

    @abstractmethod
    def sharding(self, devices: int, num_nodes: int) -> Sharding:
        """What each of so many processes on so many nodes holds."""

    @property
    def timeline(self) -> str | None:
        """Its name in ``galpaca.estimate.timeline``; None where nobody has counted what a step takes."""
        return None

    def check_layout(self, devices: int, num_nodes: int) -> None:  # noqa: B027 - most take any
        """Checks that it can be of as many processes on each node, before anything is written.

        Raises:
            InputError: it cannot.
        """

    def check_tuning(self, tuning: TuningMethod) -> None:  # noqa: B027 - as above
        """Checks that it can hold the parameters of what is trained, before anything is written.

        Raises:
            InputError: it cannot.
        """

    def memory_advice(self, num_ranks: int, tuning: TuningMethod) -> list[str]:
        """Settings with which each process would hold less, cheapest first, each with what it costs."""
        sharded = "fsdp2" if tuning.mixes_dtypes else "fsdp"  # which flattens a layer into one dtype
        return [f"several GPUs: strategy={sharded} trainer.devices=N (each holds 1/N of the weights)"]

    def speed_advice(self, num_nodes: int) -> list[str]:
        """Settings with which processes on several nodes might talk less."""
        return []

    @classmethod
    def target(cls) -> str:
        """The ``_target_`` that names it."""
        return f"{cls.__module__}.{cls.__qualname__}"

    @property
    def name(self) -> str:
        """What people call it."""
        return self.target().rpartition(".")[2]

    def values(self) -> dict[str, Any]:
        """The keys of the group ``strategy`` and their values."""
        return {"_target_": self.target(), **asdict(self)}
