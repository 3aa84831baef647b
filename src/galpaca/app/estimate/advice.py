"""What to change: settings that take less, or are faster, each evaluated like the run itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from galpaca.app.config.composition import compose
from galpaca.app.estimate.candidate import Candidate
from galpaca.app.train.memory_advice import memory_advice
from galpaca.errors import InputError

# Gains below it are within what nobody knows.
_WORTH = 0.97
_MOST = 6
# Not of a placeholder, such as ``trainer.devices=N``.
_SETTING = re.compile(r"[\w.]+=(?!N$)\S+")


class Advice(NamedTuple):
    """A change.

    Attributes:
        change: overrides, as a shell takes them.
        candidate: the run with it.
        cost: what else it changes, in words.
    """

    change: str
    candidate: Candidate
    cost: str = ""


def advice(candidate: Candidate, overrides: Sequence[str]) -> list[Advice]:
    """Where the run does not fit, what makes it fit, fastest first; else what makes it faster and still fits."""
    found = list(_evaluated(candidate, overrides, _changes(candidate)))
    if not found and candidate.verdict == "does not fit":
        found = list(_evaluated(candidate, overrides, _together(_changes(candidate))))[:1]
    return sorted(found, key=lambda one: one.candidate.run_time.total)[:_MOST]


def _evaluated(candidate: Candidate, overrides: Sequence[str], changes: Iterable[tuple[str, str]]) -> Iterator[Advice]:
    """Those of the changes that are better."""
    for change, cost in changes:
        try:
            other = _changed(candidate, overrides, change)
            better = _is_better(candidate, other)
        except InputError:  # not for this configuration
            continue
        if better:
            yield Advice(change, other, cost)


def _together(changes: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Where none is enough: the cheapest with the next, and so on; a later value of a key replaces an earlier one."""
    values: dict[str, str] = {}
    for change, _ in changes:
        values |= dict(word.split("=", 1) for word in change.split())
        yield " ".join(f"{key}={value}" for key, value in values.items()), "together"


def _is_better(before: Candidate, after: Candidate) -> bool:
    if after.verdict == "does not fit":
        return False
    if before.verdict == "does not fit":
        return True
    is_faster = after.run_time.total < _WORTH * before.run_time.total
    return is_faster or (before.verdict == "tight" and after.verdict == "fits")


def _changes(candidate: Candidate) -> Iterator[tuple[str, str]]:
    """Each as overrides, with its cost in words."""
    for text in memory_advice(candidate.config, fast_attention=candidate.fast_attention):
        settings, _, cost = text.partition(" (")
        words = list(takewhile(_SETTING.fullmatch, (word.rstrip(",") for word in settings.split())))
        if words:
            yield " ".join(words), cost.removesuffix(")")
    budget = candidate.config.batch.max_tokens
    one = candidate.planned.one_micro_batch_tokens()
    if candidate.planned.mean_micro_batches > 1.02 and one > budget:
        yield f"batch.max_tokens={one}", "one micro-batch in nearly every step"
    if candidate.config.compute.activation_checkpointing != "none":
        yield "compute.activation_checkpointing=none", "keeps all activations"
        if candidate.config.compute.activation_checkpointing == "full":
            yield "compute.activation_checkpointing=selective", "keeps what is expensive to compute again"
    if (every := candidate.checkpoint_every_steps) is not None:
        yield f"checkpoint.every_steps={every}", "training does not wait for the checkpoint before"


def _changed(candidate: Candidate, overrides: Sequence[str], change: str) -> Candidate:
    config, _ = compose([*overrides, *change.split()])
    return Candidate.of(config, candidate.cluster)
