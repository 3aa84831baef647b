"""Of the page: the same steps by others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.smollm.cells import table, wrapped

_WORDS = {
    "galpaca": "galpaca, micro-batches of at most {tokens:,} tokens",
    "trainer": "`transformers.Trainer`, 4 examples padded to the longest",
    "trainer_padded": "the same, padded to {length}",
    "trl": "TRL's `SFTTrainer`, 4 examples padded to the longest",
    "trl_packed": "the same with packing into rows of {length}, losses not comparable",
}


def peers_section(found: Mapping[str, Any]) -> list[str]:
    """Speeds and losses of each contender."""
    ours = found["losses"].get("galpaca")
    rows = []
    for name, speed in found["examples_per_second"].items():
        ratio = found["ratio"].get(name)
        losses = found["losses"][name]
        comparable = ours is not None and name not in ("galpaca", "trl_packed")
        largest = max(abs(a - b) / b for a, b in zip(losses, ours, strict=True)) if comparable else None
        rows.append(
            [
                _WORDS[name].format(length=found["max_length"], tokens=found["max_tokens"]),
                f"{speed:.3f}",
                "" if ratio is None else f"{ratio:.2f} x ({_range(found['ratio_range'][name])})",
                f"{losses[0]:.4f} to {losses[-1]:.4f}",
                "" if largest is None else f"{largest:.1e}",
            ]
        )
    return [
        "## The same steps by others",
        "",
        *wrapped(
            f"{found['steps']} steps of {found['examples_per_step']} examples ({found['mean_tokens']:.0f} tokens on "
            f"average), the same examples in the same order, the same recipe, in turns; examples per second without "
            f"the first step. Medians of {len(found['repeats'])} repeats, and the least and greatest ratio of a single "
            "one; losses of the first. A ratio above 1 means that galpaca is faster."
        ),
        "",
        *table(["contender", "examples/s", "galpaca to it", "loss", "largest difference of a loss"], rows),
    ]


def _range(ends: Sequence[float]) -> str:
    least, greatest = ends
    return f"{least:.2f} to {greatest:.2f}"
