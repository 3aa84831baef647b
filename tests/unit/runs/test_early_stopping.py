"""Early stopping is a function of the validation losses so far."""

import math

import pytest

from galpaca.runs.early_stopping import early_stop
from galpaca.runs.lines import ValidationLine


def lines(*losses: float | None) -> list[ValidationLine]:
    return [ValidationLine(step=10 * number, val_loss=loss) for number, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize(
    ("losses", "patience", "step"),
    [
        ((), 1, None),
        ((3.0,), 1, None),
        ((3.0, 2.0, 1.0), 1, None),
        ((3.0, 3.0), 1, 20),  # an equal one is no lower one
        ((3.0, 4.0, 2.0, 3.0), 2, None),
        ((3.0, 4.0, 3.5, 2.0), 2, 30),
        ((None, 3.0, None, None), 2, 40),  # a loss that is not finite
        ((None, None), 2, 20),
        ((math.inf, 3.0), 2, None),
    ],
)
def test_patience(losses: tuple[float | None, ...], patience: int, step: int | None) -> None:
    assert early_stop(lines(*losses), patience) == step
