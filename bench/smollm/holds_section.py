"""Of the page: that the model comes back after a kill, and is the same to others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.smollm.cells import table, wrapped


def kills_section(found: Mapping[str, Any]) -> list[str]:
    """Each run that was killed."""
    same = sum(one["same_bits"] for one in found["runs"])
    rows = [
        [number, one["killed_after_step"], one["resumed_from"], "yes" if one["same_bits"] else "NO"]
        for number, one in enumerate(found["runs"], 1)
    ]
    return [
        "## Killed and resumed",
        "",
        *wrapped(
            f"Full tuning over {found['steps']} steps of 4 examples, saved every "
            f"{found['checkpoint_every_steps']}, killed at random moments and started again: **{same} of {len(rows)}** "
            "ended with the released weights of a run that was never killed, and every step's loss, to the bit."
        ),
        "",
        *table(["run", "killed after step", "resumed from", "same bits"], rows),
    ]


def clients_section(found: Mapping[str, Any]) -> list[str]:
    """Each client's answers."""
    ways = list(found["clients"][0]["equal"])
    rows = [
        [one["client"], *(f"{one['equal'][way]} of {found['questions']}" for way in ways)] for one in found["clients"]
    ]
    return [
        "## The tuned folder in other programs",
        "",
        *wrapped(
            f"Answers of at most {found['answer_tokens']} tokens by `AutoModelForCausalLM` and the folder's chat "
            f"template, equal to those of `galpaca generate`, of which {found['ended']} of {found['questions']} ended "
            "by an end token, the others at the limit."
        ),
        "",
        *table(["client", *ways], rows),
    ]
