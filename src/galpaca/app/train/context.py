"""What the parts of a training run share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from galpaca.app.config.schema import Config
from galpaca.app.train.data import Steps
from galpaca.runs.folder import RunFolder
from galpaca.runs.record import RunRecord

if TYPE_CHECKING:
    from rich.console import Console

    from galpaca.model.tensors import Shapes, TensorSource


@dataclass(frozen=True)
class StartingPoint:
    """What a run starts from.

    Attributes:
        step: step of the checkpoint; 0 for the initial weights.
        weights: the initial weights, if there is no checkpoint.
        shapes: shapes of the model's parameters.
    """

    step: int
    weights: TensorSource | None
    shapes: Shapes

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())


@dataclass(frozen=True)
class RunContext:
    """A run that was checked and is about to start."""

    config: Config
    folder: RunFolder
    record: RunRecord
    steps: Steps
    start: StartingPoint
    console: Console
