"""How long a whole run takes, from a few of its steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

# The first step after a start compiles, and Adam's first update finds no moments yet.
WARM_UP_STEPS = 2

_MARGIN, _SPARE_SECONDS, _QUARTER_SECONDS = 1.25, 600, 900


@dataclass(frozen=True)
class StepTime:
    """One measured step.

    Attributes:
        tokens: tokens over all ranks.
        seconds: duration of the whole step.
        backward_seconds: duration of forward and backward, which grows with the tokens.
    """

    tokens: int
    seconds: float
    backward_seconds: float


@dataclass(frozen=True)
class Pace:
    """Speed of training steps, without warm-up.

    Attributes:
        tokens_per_second: throughput of the measured steps.
        token_seconds: forward and backward time per token.
        update_seconds: remaining time per step.
        warm_up_seconds: extra time of the first steps after a start.
    """

    tokens_per_second: float
    token_seconds: float
    update_seconds: float
    warm_up_seconds: float

    def steps_seconds(self, num_steps: int, num_tokens: int) -> float:
        """Estimated time of this many steps with this many tokens in total."""
        return num_tokens * self.token_seconds + num_steps * self.update_seconds


def pace_of(starts: Sequence[Sequence[StepTime]]) -> Pace | None:
    """The pace of measured steps; None where there is none.

    Args:
        starts: the steps of each start, in their order. The first few of each are warm-up, and count only where there
            are no others.
    """
    everything = [step for start in starts for step in start]
    steady = [step for start in starts for step in start[WARM_UP_STEPS:]] or everything
    tokens, seconds = sum(step.tokens for step in steady), sum(step.seconds for step in steady)
    backward = sum(step.backward_seconds for step in steady)
    if not tokens or not seconds:
        return None
    per_token, per_step = backward / tokens, (seconds - backward) / len(steady)
    first = next(start for start in starts if start)[:WARM_UP_STEPS]
    warm_up = sum(step.seconds - step.tokens * per_token - per_step for step in first)
    return Pace(tokens / seconds, per_token, per_step, max(0.0, warm_up))


@dataclass(frozen=True)
class RunTime:
    """Seconds of a whole run by its parts: the start until the first step, warm-up, steps, what checkpoints and
    validations hold up, answers to samples after those before the first step, and the release."""

    start: float
    warm_up: float
    steps: float
    checkpoints: float
    validations: float
    samples: float
    release: float

    @property
    def total(self) -> float:
        return sum(getattr(self, part.name) for part in fields(self))


def checkpoints_seconds(
    num_checkpoints: int, interval_seconds: float, *, stall: float, write: float, last: float
) -> float:
    """Time that training waits for checkpoints.

    Args:
        num_checkpoints: number of checkpoints, including the last step's.
        interval_seconds: time between two checkpoints.
        stall: wait for an asynchronous checkpoint.
        write: time until it is written; the next one waits for it.
        last: time for the last step's checkpoint, which the run waits for.
    """
    waits = max(0.0, write - interval_seconds)
    return max(0, num_checkpoints - 1) * (stall + waits) + (last if num_checkpoints else 0.0)


def time_to_ask(seconds: float) -> str:
    """SLURM's ``--time`` as HH:MM:SS: a quarter more plus ten minutes, rounded up to a quarter of an hour."""
    return time_limit(_MARGIN * seconds + _SPARE_SECONDS)


def time_limit(seconds: float) -> str:
    """SLURM's ``--time`` as HH:MM:SS, rounded up to a quarter of an hour."""
    quarters = math.ceil(round(seconds / _QUARTER_SECONDS, 9))
    hours, minutes = divmod(15 * quarters, 60)
    return f"{hours:02d}:{minutes:02d}:00"
