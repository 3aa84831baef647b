"""A run in a few figures."""

from collections.abc import Sequence

from galpaca.runs.content import FinalFigures
from galpaca.runs.lines import StepLine, ValidationLine


def final_figures(steps: Sequence[StepLine], validations: Sequence[ValidationLine]) -> FinalFigures:
    """Summary metrics of a run over all its starts.

    Args:
        steps: lines of optimizer steps, in order.
        validations: lines of validations, in order.
    """
    seconds = sum(line.step_seconds or 0.0 for line in steps)
    tokens = sum(line.tokens for line in steps)
    return FinalFigures(
        steps=len(steps),
        first_loss=steps[0].loss if steps else None,
        loss=steps[-1].loss if steps else None,
        train_seconds=round(seconds, 2),
        tokens=tokens,
        target_tokens=sum(line.target_tokens for line in steps),
        tokens_per_second=round(tokens / seconds, 1) if seconds else None,
        peak_memory_bytes=max((line.peak_memory_bytes or 0 for line in steps), default=None),
        skipped_steps=sum(bool(line.skipped) for line in steps),
        validations=len(validations),
        val_loss=validations[-1].val_loss if validations else None,
    )
