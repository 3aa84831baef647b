"""Steps that take far longer than those before them."""

from collections.abc import Sequence
from statistics import median

# Steps to compare with: fewer say nothing, older ones are of another time.
FEWEST, MOST = 10, 50
FACTOR = 10.0
# A small model's step of milliseconds may take ten times as long without anything being wrong.
LEAST_SECONDS = 5.0


def is_stall(step_seconds: float, earlier_seconds: Sequence[float]) -> bool:
    """Whether a step took ten times the median of the last fifty, and long enough for a person to care.

    Args:
        step_seconds: duration of the step.
        earlier_seconds: durations of all earlier steps, or of the last fifty.
    """
    recent = earlier_seconds[-MOST:]
    return len(recent) >= FEWEST and step_seconds >= max(LEAST_SECONDS, FACTOR * median(recent))
