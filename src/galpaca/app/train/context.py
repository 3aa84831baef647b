"""What the parts of a training run share."""

import math
from dataclasses import dataclass

from rich.console import Console

from galpaca.app.config.schema import Config
from galpaca.app.train.steps import Steps
from galpaca.model.tensors import Shapes, TensorSource
from galpaca.model.tuning.method import TuningMethod
from galpaca.runs.folder import RunFolder
from galpaca.runs.record import RunRecord


@dataclass(frozen=True)
class StartingPoint:
    """What a run starts from.

    Attributes:
        step: step of the checkpoint; 0 for the initial weights.
        weights: the initial weights, unless a checkpoint has all that the model needs.
        base_shapes: shapes of the model's parameters as they are in its files.
        shapes: those of the model that is trained, which may have adapters.
        tuning: which of them are trained.
    """

    step: int
    weights: TensorSource | None
    base_shapes: Shapes
    shapes: Shapes
    tuning: TuningMethod

    @property
    def num_parameters(self) -> int:
        """Of the model, without adapters."""
        return _num_values(self.base_shapes)

    @property
    def num_trained(self) -> int:
        return _num_values(self.tuning.trained_shapes(self.shapes))

    @property
    def num_added(self) -> int:
        """Trained parameters that the model in its files has not."""
        trained = self.tuning.trained_shapes(self.shapes)
        return _num_values({name: shape for name, shape in trained.items() if name not in self.base_shapes})


def _num_values(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


@dataclass(frozen=True)
class OpenedRun:
    """A run whose folder is locked and whose recipe is accepted."""

    config: Config
    folder: RunFolder
    record: RunRecord
    console: Console


@dataclass(frozen=True)
class RunContext(OpenedRun):
    """A run that was checked and is about to start."""

    steps: Steps
    start: StartingPoint
