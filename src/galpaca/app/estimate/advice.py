"""What to change: settings that take less, or are faster, each evaluated like the run itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

from galpaca.app.config.composition import compose
from galpaca.app.estimate.candidate import Candidate
from galpaca.app.estimate.run_time import written_every_steps
from galpaca.app.train.memory_advice import memory_advice
from galpaca.errors import InputError
from galpaca.model.compute_spec import RECOMPUTATIONS

# Gains below it are within what nobody knows.
_WORTH = 0.97
# As fast on half of the GPUs: for that, a little slower counts as well.
_AS_FAST = 1.05
_NODES = "trainer.num_nodes"
_MOST = 6
# Not of a placeholder, such as ``trainer.devices=N``.
_SETTING = re.compile(r"[\w.]+=(?!N$)\S+")


class Change(NamedTuple):
    """Overrides, as a shell takes them."""

    overrides: str
    changes_recipe: bool = False


class Advice(NamedTuple):
    """A change that is better.

    Attributes:
        change: overrides, as a shell takes them.
        candidate: the run with it.
        changes_recipe: it trains another model, so needs a name of its own.
    """

    change: str
    candidate: Candidate
    changes_recipe: bool = False


def advice(candidate: Candidate, overrides: Sequence[str]) -> list[Advice]:
    """Where the run does not fit, what makes it fit; else what makes it faster, or is as fast on fewer GPUs. What keeps
    the recipe comes first, and of that the fastest.
    """
    smaller = [] if candidate.verdict == "fits" else list(_smaller(candidate))
    faster = [] if candidate.verdict == "does not fit" else list(_faster(candidate))
    found = list(_evaluated(candidate, overrides, [*faster, *smaller]))
    if candidate.verdict == "does not fit" and all(one.changes_recipe for one in found):
        keeping = [change for change in smaller if not change.changes_recipe]
        found += _together(candidate, overrides, keeping) or _together(candidate, overrides, smaller)
    found.sort(key=lambda one: (one.changes_recipe, one.candidate.run_time.total))
    return found[:_MOST]


def _evaluated(candidate: Candidate, overrides: Sequence[str], changes: Iterable[Change]) -> Iterator[Advice]:
    """Those of the changes that are better."""
    for change in changes:
        other = _changed(candidate, overrides, change)
        if other is not None and _is_better(candidate, other, change):
            yield Advice(change.overrides, other, change.changes_recipe)


def _together(candidate: Candidate, overrides: Sequence[str], changes: Sequence[Change]) -> list[Advice]:
    """Where none is enough: as many of them, cheapest first, as make it fit, without those that turn out unneeded."""
    chosen: list[Change] = []
    for change in changes:
        chosen.append(change)
        if _fits(candidate, overrides, chosen):
            break
    else:
        return []
    for change in chosen[:-1]:
        fewer = [one for one in chosen if one is not change]
        if _fits(candidate, overrides, fewer):
            chosen = fewer
    merged = _merged(chosen)
    other = _changed(candidate, overrides, merged)
    assert other is not None
    return [Advice(merged.overrides, other, merged.changes_recipe)]


def _fits(candidate: Candidate, overrides: Sequence[str], changes: Sequence[Change]) -> bool:
    other = _changed(candidate, overrides, _merged(changes))
    return other is not None and other.verdict != "does not fit"


def _merged(changes: Sequence[Change]) -> Change:
    """A later value of a key replaces an earlier one."""
    values: dict[str, str] = {}
    for change in changes:
        values |= dict(word.split("=", 1) for word in change.overrides.split())
    text = " ".join(f"{key}={value}" for key, value in values.items())
    return Change(text, any(change.changes_recipe for change in changes))


def _is_better(before: Candidate, after: Candidate, change: Change) -> bool:
    if after.verdict == "does not fit":
        return False
    if before.verdict == "does not fit":
        return True
    if change.changes_recipe or (before.verdict == "fits" and after.verdict != "fits"):
        return False
    if after.cluster.num_ranks < before.cluster.num_ranks:
        return after.run_time.total < _AS_FAST * before.run_time.total
    return after.run_time.total < _WORTH * before.run_time.total or before.verdict == "tight" != after.verdict


def _faster(candidate: Candidate) -> Iterator[Change]:
    """What may take more memory and less time."""
    config, planned, nodes = candidate.config, candidate.planned, candidate.cluster.num_nodes
    budget, one = config.batch.max_tokens, planned.one_micro_batch_tokens()
    if planned.mean_micro_batches > 1.02 and one > budget:
        yield Change(f"batch.max_tokens={one}")
    how = config.compute.activation_checkpointing
    for less in RECOMPUTATIONS[: RECOMPUTATIONS.index(how)]:
        yield Change(f"compute.activation_checkpointing={less}")
    yield from map(Change, config.strategy.factory.speed_advice(nodes))
    if (every := written_every_steps(candidate)) is not None:
        yield Change(f"checkpoint.every_steps={every}")
    if nodes > 1:
        yield Change(f"{_NODES}={nodes // 2}")


def _smaller(candidate: Candidate) -> Iterator[Change]:
    """What takes less memory, cheapest first."""
    for text in memory_advice(candidate.config, fast_attention=candidate.fast_attention):
        settings, _, cost = text.partition(" (")
        if words := list(takewhile(_SETTING.fullmatch, (word.rstrip(",") for word in settings.split()))):
            yield Change(" ".join(words), "recipe" in cost and "same recipe" not in cost)
            if "tuning=lora" in words and candidate.cluster.num_ranks > 1:
                yield Change(" ".join([*words, "strategy=fsdp2"]), changes_recipe=True)
    if candidate.sharding.gathers:
        yield Change(f"{_NODES}={2 * candidate.cluster.num_nodes}")


def _changed(candidate: Candidate, overrides: Sequence[str], change: Change) -> Candidate | None:
    """The run with a change; None where that is not possible, or what it takes is not known."""
    given = [*overrides, *change.overrides.split()]
    if any(word.startswith("strategy=") for word in change.overrides.split()):
        given = [*without_strategy(overrides), *change.overrides.split()]
    try:
        config, _ = compose(given)
        cluster = replace(candidate.cluster, num_nodes=config.trainer.num_nodes)
        if cluster.num_ranks > config.batch.examples:
            return None
        found = Candidate.of(config, cluster, candidate.num_records)
        return found if found.memory.total > 0 else None
    except InputError:
        return None


def without_strategy(overrides: Sequence[str]) -> list[str]:
    """Overrides without those that another strategy would not know."""
    return [word for word in overrides if not re.match(r"[+~]*strategy[.=]", word)]
