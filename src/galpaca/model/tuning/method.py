"""What training, checkpoints and releases need to know of a way to tune; cheap to import."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from galpaca.estimate.memory import Held
from galpaca.model.families.family import Family
from galpaca.model.families.opt import OPT

if TYPE_CHECKING:
    import torch
    from torch import nn

    from galpaca.model.tensors import Shapes, TensorSource


@dataclass(frozen=True)
class TuningMethod(ABC):
    """Which parameters train, what they start from, and what a model is released from.

    A subclass is a frozen dataclass. Its fields are the keys of the group ``tuning``; it checks them in
    ``__post_init__``. Its module imports torch in methods only, so that a mistake in the configuration is reported
    before torch is loaded. Names of parameters are those of the prepared model.

    Attributes:
        family: of the model that is tuned: see ``on``.
        keeps_base: weights of the model that a run starts from are part of the trained model, and in no checkpoint:
            each start and each release needs them again.
        mixes_dtypes: a layer's parameters are of several dtypes, which not every strategy can hold.
        flops_per_weight: operations for each weight of the base's matrix products and each token, forward and backward.
        held: bytes of the base's weights in training on one GPU, with products in 16 bits.
        timeline: its name in ``galpaca.estimate.timeline``; None where nobody has counted what a step takes.
    """

    family: ClassVar[Family] = OPT
    keeps_base: ClassVar[bool] = False
    mixes_dtypes: ClassVar[bool] = False
    flops_per_weight: ClassVar[int] = 6
    held: ClassVar[Held] = Held()
    timeline: ClassVar[str | None] = None

    def on(self, family: Family) -> Self:
        """The same for models of a family.

        Raises:
            InputError: a setting does not fit the family.
        """
        bound = copy.copy(self)
        object.__setattr__(bound, "family", family)  # no field: it is the model's, and no key of the group
        return bound

    @abstractmethod
    def trained(self, name: str) -> bool:
        """Whether a parameter is trained, and so saved."""

    def trained_shapes(self, shapes: Shapes) -> Shapes:
        """Those of the parameters that are trained."""
        return {name: shape for name, shape in shapes.items() if self.trained(name)}

    def check(self, weight_dtype: str) -> None:  # noqa: B027 - most have nothing to check
        """Checks that it works with trained weights of a dtype.

        Raises:
            InputError: it does not.
        """

    def check_model(self, base: Shapes) -> None:  # noqa: B027 - as above
        """Checks that it fits a model.

        Args:
            base: shapes of the model's parameters before ``prepare``.

        Raises:
            InputError: it does not.
        """

    def prepare(self, model: nn.Module, compute_dtype: torch.dtype) -> None:  # noqa: B027 - as above
        """Changes a model on the meta device to what is trained: after ``prepare_layers``, before a strategy wraps it.

        Args:
            compute_dtype: dtype of matrix products in training.
        """

    def shapes(self, base: Shapes) -> Shapes:
        """Shapes of the parameters of the prepared model."""
        return base

    def starting_weights(self, base: TensorSource, seed: int) -> TensorSource:
        """The first weights of the prepared model.

        Args:
            base: those of the model before ``prepare``.
            seed: of the run.
        """
        return base

    def released(
        self, base: TensorSource, trained: TensorSource, compute_dtype: torch.dtype, *, original: bool = False
    ) -> TensorSource:
        """The weights of the whole model that was trained, under the names that it had before ``prepare``.

        Args:
            base: those that the run started from.
            trained: what a checkpoint holds.
            compute_dtype: as ``prepare`` was given.
            original: put what was trained into the base's values as they are in its files, instead of as they were
                rounded or quantized in training.
        """
        from galpaca.model.tensors import Overlaid

        return Overlaid(base, trained)

    def adapter_config(self) -> dict[str, Any] | None:
        """Settings of PEFT's ``adapter_config.json``; None where what is trained is no adapter."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """The method in a line, for the terminal and the model card."""

    def lr_advice(self, lr: float) -> str:
        """Why a learning rate may be a mistake; empty if it is usual."""
        return ""

    def memory_advice(self) -> list[str]:
        """Settings that would take less memory, each with what it costs."""
        return []

    @classmethod
    def target(cls) -> str:
        """The ``_target_`` that names it."""
        return f"{cls.__module__}.{cls.__qualname__}"

    def values(self) -> dict[str, Any]:
        """The keys of the group ``tuning`` and their values."""
        return {"_target_": self.target(), **asdict(self)}

    def recipe(self) -> Mapping[str, Any]:
        """Those that decide the trained weights; a method that leaves them as full tuning does has none."""
        return self.values()
