"""Which card can do what, from the arithmetic of ``galpaca.estimate.memory``.

A page marks where the table goes by ``<!-- memory: one GPU -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import marks

from galpaca.app.config.shapes import shape_of
from galpaca.estimate.memory import HOST_MOMENTS_ROOM_BYTES, Fullest, TrainedModel, step_memory
from galpaca.estimate.timeline import Kind
from galpaca.model.tuning.full import FullTuning
from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.qlora import QLora

_GIB = 1 << 30
_SIZES = ("125m", "1.3b", "6.7b", "30b", "120b")
# Memory in GiB that programs can use of it, and its name.
_CARDS = (
    (15.5, "16 GB"),
    (23.5, "24 GB"),
    (31.5, "32 GB"),
    (39.5, "40 GB"),
    (47.5, "48 GB"),
    (79.0, "80 GB"),
    (139.0, "141 GB"),
)
# Of the optimizer: bytes of its state a parameter on the card, and what else of it is there.
_FLOAT32, _BFLOAT16, _ON_HOST = (8.0, 0.0), (4.0, 0.0), (0.0, HOST_MOMENTS_ROOM_BYTES)
_METHODS = (
    ("full", FullTuning(), 0, _FLOAT32),
    ("full, `optim.moments_dtype=bfloat16`", FullTuning(), 0, _BFLOAT16),
    ("full, `optim.moments_on=host`", FullTuning(), 0, _ON_HOST),
    ("lora", Lora(), 16, _FLOAT32),
    ("qlora", QLora(), 16, _FLOAT32),
)
_TOKENS = (1024, 4096)


def filled(text: str) -> str:
    """A page with its table."""
    return marks.filled(text, "memory", lambda _: table())


def table() -> str:
    """A row for each size and method: GiB at two budgets of tokens, and the smallest card for each."""
    header = ["model", "tuning", *(f"{tokens:,} tokens" for tokens in _TOKENS), "smallest card"]
    rows = [header, ["---"] * len(header)]
    for size in _SIZES:
        architecture = shape_of(f"galactica-{size}")
        for name, method, rank, (state_bytes, room_bytes) in _METHODS:
            kind = Kind("opt", "single", method.timeline or "", "wide", "full")
            model = TrainedModel(architecture, method.held, rank, state_bytes, room_bytes)
            needs = [step_memory(kind, model, Fullest.of(tokens)).total / _GIB for tokens in _TOKENS]
            cards = list(dict.fromkeys(smallest_card(need) for need in needs))
            rows.append([f"galactica-{size}", name, *(f"{need:.1f} GiB" for need in needs), " to ".join(cards)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def smallest_card(need_gib: float) -> str:
    """The smallest card that has so much, with a tenth to spare: the arithmetic is not measured."""
    return next((name for memory, name in _CARDS if 1.1 * need_gib <= memory), "several GPUs")
