"""When a run has learned what it can: a pure function of its validation losses, so that a resumed run stops where one
that was not interrupted would.
"""

import math
from collections.abc import Iterable

from galpaca.runs.folder import RunFolder
from galpaca.runs.lines import ValidationLine
from galpaca.runs.metrics import read_metrics


def early_stop(validations: Iterable[ValidationLine], patience: int) -> int | None:
    """The step of the validation that uses up the patience; None where none does.

    Args:
        validations: in the order of their steps. A loss that is not finite is no lower one.
        patience: validations in a row without a loss below all those before them, after which training ends.
    """
    lowest, waited = math.inf, 0
    for line in validations:
        if line.val_loss is not None and line.val_loss < lowest:
            lowest, waited = line.val_loss, 0
            continue
        waited += 1
        if waited >= patience:
            return line.step
    return None


def stops_early(folder: RunFolder, patience: int | None) -> bool:
    """Whether a run has used up its patience; never without one."""
    if patience is None:
        return False
    validations = (line for line in read_metrics(folder.metrics) if isinstance(line, ValidationLine))
    return early_stop(validations, patience) is not None
