"""What training, checkpoints and the model card need to know of an optimizer; cheap to import."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch.optim import Optimizer

_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "uint8": 1}


@dataclass(frozen=True)
class OptimizerFactory(ABC):
    """An optimizer's settings, and how to make it.

    A subclass is a frozen dataclass. Its fields are the keys of the group ``optim`` besides those of ``OptimizerSpec``;
    it checks them in ``__post_init__``. Its module imports torch in ``make`` only, so that a mistake in the
    configuration is reported before torch is loaded.

    Attributes:
        not_in_recipe: fields that move the weights by rounding at most, and may change when a run is resumed.
    """

    not_in_recipe: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def make(self, groups: Sequence[dict[str, Any]]) -> Optimizer:
        """The optimizer over parameter groups.

        Args:
            groups: as torch's optimizers take them; each has ``params`` and ``lr``, and the one of parameters without
                weight decay has ``weight_decay`` 0.
        """

    @property
    @abstractmethod
    def state(self) -> Mapping[str, str | None]:
        """Dtype of each kind of state by its name; None for the parameter's own.

        All are of the parameter's shape: each rank saves and restores ranges of them, as of the weights. A count of
        updates, ``step``, is not among them; where the optimizer keeps one, it is restored, too.
        """

    @abstractmethod
    def describe(self) -> str:
        """The optimizer and its settings in a line, for the model card."""

    def memory_advice(self) -> list[str]:
        """Settings that would take less memory, each with what it costs."""
        return []

    def slow_memory_advice(self) -> list[str]:
        """The same, of settings that cost more time than to compute the forward pass again."""
        return []

    @classmethod
    def target(cls) -> str:
        """The ``_target_`` that names it."""
        return f"{cls.__module__}.{cls.__qualname__}"

    def recipe(self) -> dict[str, Any]:
        """The settings that decide the trained weights, by their keys."""
        return {key: value for key, value in asdict(self).items() if key not in self.not_in_recipe}

    def state_dtypes(self, weight_dtype: str) -> dict[str, str]:
        """Dtype of each kind of state where parameters are of ``weight_dtype``."""
        return {name: dtype or weight_dtype for name, dtype in self.state.items()}

    def state_bytes(self, weight_dtype: str) -> int:
        """Bytes of state of a parameter."""
        return sum(map(dtype_bytes, self.state_dtypes(weight_dtype).values()))

    def host_state_bytes(self, weight_dtype: str) -> int:
        """Those of them that are in host memory."""
        return 0


def dtype_bytes(name: str) -> int:
    """Size of a number of a dtype, by torch's name for it."""
    return _BYTES[name]
