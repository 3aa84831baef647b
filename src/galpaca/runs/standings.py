"""How runs stand to one another: only losses of the same data and tokenizer are comparable."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from galpaca.runs.recipe import DATA, TOKENIZER
from galpaca.runs.record_fields import RunContent


@dataclass(frozen=True)
class Standing:
    """What a run is ranked by.

    Attributes:
        name: distinct from those of the others.
        data: beginning of the fingerprints of data and tokenizer: losses of others are of other things.
        loss: loss of the last step.
        val_loss: loss of the last validation.
    """

    name: str
    data: str
    loss: float | None
    val_loss: float | None


def data_of(record: RunContent) -> str:
    """What a run's losses are of, as ``Standing.data``; empty where it is not known."""
    settings = record.recipe.settings if record.recipe else {}
    return "-".join(str(settings[key])[:6] for key in (DATA, TOKENIZER) if key in settings)


def ranked(runs: Sequence[Standing]) -> list[int]:
    """Places of the runs: those with the same data together, sorted by validation loss (runs without one last), then
    by loss.
    """
    counts = Counter(run.data for run in runs)

    def order(place: int) -> tuple[object, ...]:
        run = runs[place]
        return (-counts[run.data], run.data, *_last(run.val_loss), *_last(run.loss), run.name)

    return sorted(range(len(runs)), key=order)


def best_of(runs: Sequence[Standing]) -> frozenset[int]:
    """Places of those with the lowest validation loss of several runs with the same data."""
    counts = Counter(run.data for run in runs)
    first = {runs[place].data: place for place in reversed(ranked(runs))}
    return frozenset(p for data, p in first.items() if counts[data] > 1 and runs[p].val_loss is not None)


def _last(value: float | None) -> tuple[bool, float]:
    return value is None, value or 0.0
