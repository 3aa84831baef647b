"""What must hold of GALACTICA 6.7B's layers on a card, whatever the way to train."""

import json
from pathlib import Path
from typing import Any

GIB = 2**30
NUM_LAYERS = 32
NUM_SEEN_LAYERS = 3
# Parameters of a layer's matrices: four of attention, two of four times that size.
LAYER_MATRICES = 12 * 4_096**2
# That the whole model keeps at 4,096 tokens, half of them targets.
KEPT_GIB = {
    ("single", "none"): 30.7,
    ("single", "selective"): 11.8,
    ("single", "full"): 2.8,
    ("fsdp", "none"): 17.3,
    ("fsdp", "selective"): 10.4,
    ("fsdp", "full"): 1.4,
}

MOVED = Path(__file__).with_name("moved_bytes.json")
# A number may grow by half a percent before a test fails.
MOST_GROWTH = 1.005


def kept_gib(found: dict[str, Any]) -> float:
    """GiB that a whole model keeps for backward: the second of three layers stands for all in the middle."""
    first, middle, last = found["kept_bytes"]
    return (first + (NUM_LAYERS - 2) * middle + last + found["kept_beside_bytes"]) / GIB


def moved_bytes(found: dict[str, Any]) -> dict[str, int]:
    """Bytes that the generated kernels of each program move, and those of the libraries', by its name."""
    names = ("layer forward", "layer backward", "last layer forward", "last layer backward")
    moved = {}
    for name, program in zip(names, found["programs"], strict=True):
        moved[f"{name}, generated"] = program["generated_bytes"]
        moved[f"{name}, library"] = program["library_bytes"]
    return moved


def committed() -> dict[str, dict[str, int]]:
    """Moved bytes by card and case, as committed."""
    return json.loads(MOVED.read_text(encoding="utf-8"))


def growth(before: dict[str, int], now: dict[str, int]) -> dict[str, str]:
    """What grew by more than is allowed, or is new, or is gone."""
    grown = {}
    for name in sorted(before.keys() | now.keys()):
        if name not in before or name not in now:
            grown[name] = "is new" if name in now else "is gone"
        elif now[name] > before[name] * MOST_GROWTH:
            grown[name] = f"moves {now[name]:,} bytes, not {before[name]:,}"
    return grown
