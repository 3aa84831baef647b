"""Which ways to train are looked at, on which cards."""

from itertools import product
from typing import Any

PRECISIONS = ("bf16-mixed", "16-mixed")
STRATEGIES = ("single", "fsdp")
RECOMPUTATIONS = ("none", "selective", "full")

ALL = [
    {"precision": precision, "strategy": strategy, "recomputation": recomputation}
    for strategy, precision, recomputation in product(STRATEGIES, PRECISIONS, RECOMPUTATIONS)
]
# Those of the published recipe, and of one card: what is looked at in every run of the tests.
FEW = {
    "h100": [
        {"precision": "bf16-mixed", "strategy": "single", "recomputation": "none"},
        {"precision": "16-mixed", "strategy": "fsdp", "recomputation": "selective"},
    ]
}
# sm_80 and sm_90.
MANY = {"a100": ALL, "h100": ALL}


def name(case: dict[str, Any]) -> str:
    return f"{case['strategy']} {case['precision']} {case['recomputation']}"


UPDATE_CARD = "h100"
UPDATES = [
    {"precision": precision, "moments": moments} for precision, moments in product(PRECISIONS, ("float32", "bfloat16"))
]


def update_name(case: dict[str, Any]) -> str:
    return f"update {case['precision']} {case['moments']} moments"
