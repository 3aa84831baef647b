"""Whether two runs trained the same: to the bit, or within a tolerance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from galpaca.runs.checkpoints import Manifest

# Other from run to run, whatever happens to it; and how compiling went depends on where a start began.
OF_THE_MACHINE = ("_per_second", "_seconds", "_bytes", "mfu", "compiled_graphs")
# What a step is, on however many ranks.
_OF_THE_PLAN = ("step", "epoch", "lr", "examples", "tokens", "target_tokens")
# Relative, of a step's loss: on fewer ranks other numbers are drawn for dropout, and sums have another order.
LOSS_TOLERANCE = 2e-2


def step_lines(metrics: Path) -> list[dict[str, Any]]:
    """Lines of steps, in the order of the file."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "loss" in line]


def other_bits(straight: Manifest, other: Manifest) -> list[str]:
    """Names of the ranks' files, weights and moments, whose checksums differ between two checkpoints."""
    files = {name for name in (*straight.files, *other.files) if name.endswith(".safetensors")}
    return sorted(name for name in files if straight.files.get(name) != other.files.get(name))


def other_lines(straight: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[str]:
    """What steps' figures differ in, but for times and memory."""
    found = []
    if [line["step"] for line in straight] != [line["step"] for line in other]:
        found.append(f"{len(straight)} and {len(other)} steps")
    for line, its in zip(straight, other, strict=False):
        for key in sorted(line.keys() | its.keys()):
            if not key.endswith(OF_THE_MACHINE) and line.get(key) != its.get(key):
                found.append(f"step {line['step']}: {key} {line.get(key)} and {its.get(key)}")
    return found


def other_plan(straight: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[str]:
    """What steps differ in that must be the same on any number of ranks: examples, tokens, learning rate."""
    only = [[{key: line.get(key) for key in _OF_THE_PLAN} for line in lines] for lines in (straight, other)]
    return other_lines(*only)


def loss_difference(straight: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    """The largest relative difference of a step's loss.

    Raises:
        RuntimeError: they have not the same steps, each once.
    """
    steps = [line["step"] for line in straight]
    if steps != [line["step"] for line in other] or len(set(steps)) != len(steps):
        raise RuntimeError(f"other steps: {len(steps)} and {len(other)}, or one of them twice")
    return max(abs(its["loss"] / line["loss"] - 1) for line, its in zip(straight, other, strict=True))
