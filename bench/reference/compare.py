"""galpaca's steps beside the plain loop's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

# Relative, of any step. In float32 sums have another order, which 200 steps of training carry along; in bfloat16
# products round on the way, and other ones.
TOLERANCES = {
    "32-true": {"loss": 1e-4, "grad_norm": 1e-2, "lr": 1e-6},
    "bf16-mixed": {"loss": 2e-2, "grad_norm": 2e-1, "lr": 1e-6},
}
# What both must count alike.
_EXACT = ("step", "tokens", "target_tokens")


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Steps in a file that may still be written."""
    if not path.is_file():
        return []
    lines = [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1:] == "\n"
    ]
    return [line for line in lines if "loss" in line]


def compare(ours: list[dict[str, Any]], plain: list[dict[str, Any]], precision: str, num_steps: int) -> dict[str, Any]:
    """The largest relative differences of the steps that both have, and whether all are within the tolerances."""
    count = min(len(ours), len(plain))
    tolerances, problems, largest = TOLERANCES[precision], [], dict.fromkeys(TOLERANCES[precision], 0.0)
    for line, its in zip(ours[:count], plain[:count], strict=True):
        problems += [f"step {its['step']}: {key} {line[key]} and {its[key]}" for key in _EXACT if line[key] != its[key]]
        for key, tolerance in tolerances.items():
            difference = _relative(line[key], its[key])
            largest[key] = max(largest[key], difference)
            if not difference <= tolerance:
                problems.append(f"step {its['step']}: {key} {line[key]} and {its[key]}, {difference:.1e} apart")
    return {
        "steps_compared": count,
        "steps": num_steps,
        "largest_differences": largest,
        "tolerances": tolerances,
        "problems": problems[:20],
        "passed": count > 0 and not problems,
    }


def _relative(one: float | None, other: float) -> float:
    """Infinite where there is no number, which no tolerance passes."""
    if one is None or not math.isfinite(other):
        return math.inf
    return 0.0 if one == other else abs(one - other) / max(abs(other), 1e-12)
