"""Outcomes side by side: examples a second, galpaca's ratio to each peer, and whether they trained the same."""

from __future__ import annotations

import math
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.table import Table

from bench.peers.outcome import Outcome
from galpaca.errors import GalpacaError

Repeat = dict[str, Outcome]

OURS = "galpaca"
LARGEST_LOSS_DIFFERENCE = 1e-3  # relative
# Its rows are filled by length and not by the plan, and with sdpa an example sees those before it in its row.
NOT_COMPARABLE = ("trl_packed",)
_RATE_TOLERANCE = 1e-9  # relative; the same formula, evaluated in another order


def examples_per_second(repeats: list[Repeat]) -> dict[str, float]:
    """The median over the repeats, by contender."""
    return {name: median(repeat[name].examples_per_second for repeat in repeats) for name in repeats[0]}


def ratios(repeats: list[Repeat]) -> dict[str, dict[str, float]]:
    """galpaca's examples a second over each peer's: of the medians, and the least and greatest of single repeats."""
    medians = examples_per_second(repeats)
    if OURS not in medians:
        return {}
    return {name: _ratio(name, medians, repeats) for name in medians if name != OURS}


def _ratio(name: str, medians: dict[str, float], repeats: list[Repeat]) -> dict[str, float]:
    single = [repeat[OURS].examples_per_second / repeat[name].examples_per_second for repeat in repeats]
    return {"of_medians": medians[OURS] / medians[name], "least": min(single), "greatest": max(single)}


def loss_differences(repeat: Repeat) -> dict[str, float]:
    """The largest relative difference of a step's loss from galpaca's, by peer."""
    if OURS not in repeat:
        return {}
    ours = repeat[OURS].losses
    return {
        name: max(_difference(theirs, mine) for theirs, mine in zip(outcome.losses, ours, strict=True))
        for name, outcome in repeat.items()
        if name != OURS and name not in NOT_COMPARABLE
    }


def _difference(theirs: float, mine: float) -> float:
    """Relative; infinite where a loss is no number, which ``max`` would pass over."""
    difference = abs(theirs - mine) / abs(mine)
    return math.inf if math.isnan(difference) else difference


def check_same_training(repeat: Repeat) -> None:
    """Raises:
    GalpacaError: a peer's losses or learning rates are not galpaca's, so their speeds are not to be compared.
    """
    for name, difference in loss_differences(repeat).items():
        if difference > LARGEST_LOSS_DIFFERENCE:
            raise GalpacaError(
                f"losses differ from galpaca's by up to {difference:.2e} relative, above {LARGEST_LOSS_DIFFERENCE}",
                where=name,
                why=_why_losses_differ(repeat[name]),
                fix=f"compare the steps: {repeat[name].losses} and galpaca's {repeat[OURS].losses}",
            )
    for name, outcome in repeat.items() if OURS in repeat else ():
        rates = zip(outcome.learning_rates, repeat[OURS].learning_rates, strict=True)
        if any(abs(theirs - mine) > _RATE_TOLERANCE * max(mine, theirs) for theirs, mine in rates):
            raise GalpacaError(
                "learning rates differ from galpaca's",
                where=name,
                why=f"{outcome.learning_rates} and {repeat[OURS].learning_rates}",
                fix="the schedule of one of them has changed: mend the recipe of the benchmark",
            )


def _why_losses_differ(outcome: Outcome) -> str:
    if not outcome.token_weighted:
        return "its loss is a mean of micro-batches' means: the model takes no num_items_in_batch"
    return "the contenders did not train the same model on the same examples"


def figures(repeats: list[Repeat]) -> dict[str, Any]:
    """JSON-ready figures of all repeats; losses are those of the first."""
    differences = [value for repeat in repeats for value in loss_differences(repeat).values()]
    return {
        "examples_per_second": examples_per_second(repeats),
        "ratio": {name: ratio["of_medians"] for name, ratio in ratios(repeats).items()},
        "ratio_range": {name: [ratio["least"], ratio["greatest"]] for name, ratio in ratios(repeats).items()},
        "largest_loss_difference": max(differences, default=None),
        "losses": {name: outcome.losses for name, outcome in repeats[0].items()},
        "repeats": [{name: _raw(outcome) for name, outcome in repeat.items()} for repeat in repeats],
    }


def _raw(outcome: Outcome) -> dict[str, Any]:
    return {"examples_per_second": outcome.examples_per_second, **asdict(outcome)}


def table(repeats: list[Repeat]) -> Table:
    """Examples a second and galpaca's ratio, one contender a row."""
    shown = Table(title=f"Training, median of {len(repeats)} repeat{'s' if len(repeats) > 1 else ''}")
    shown.add_column("contender")
    for heading in ("examples/s", "galpaca to it", "single repeats", "largest loss difference"):
        shown.add_column(heading, justify="right")
    found = ratios(repeats)
    for name, speed in examples_per_second(repeats).items():
        shown.add_row(name, f"{speed:.2f}", *_ratio_cells(found.get(name)), _difference_cell(name, repeats))
    return shown


def _ratio_cells(ratio: dict[str, float] | None) -> tuple[str, str]:
    if ratio is None:
        return "", ""
    return f"{ratio['of_medians']:.2f}x", f"{ratio['least']:.2f}..{ratio['greatest']:.2f}x"


def _difference_cell(name: str, repeats: list[Repeat]) -> str:
    if name in NOT_COMPARABLE:
        return "not comparable"
    found = [loss_differences(repeat)[name] for repeat in repeats if name in loss_differences(repeat)]
    return f"{max(found):.1e}" if found else ""
