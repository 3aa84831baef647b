"""Summary metrics of a run."""

from collections.abc import Mapping, Sequence
from typing import Any


def final_figures(steps: Sequence[Mapping[str, Any]], validations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summary metrics of a run over all its starts.

    Args:
        steps: lines of optimizer steps, in order.
        validations: lines of validations, in order.
    """
    seconds = sum(line.get("step_seconds") or 0.0 for line in steps)
    tokens = sum(line.get("tokens", 0) for line in steps)
    final: dict[str, Any] = {
        "steps": len(steps),
        "first_loss": steps[0]["loss"] if steps else None,
        "loss": steps[-1]["loss"] if steps else None,
        "train_seconds": round(seconds, 2),
        "tokens": tokens,
        "target_tokens": sum(line.get("target_tokens", 0) for line in steps),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "peak_memory_bytes": max((line.get("peak_memory_bytes", 0) for line in steps), default=None),
        "skipped_steps": sum(bool(line.get("skipped")) for line in steps),
    }
    if validations:
        final["val_loss"] = validations[-1]["val_loss"]
    return final
