"""All trainings side by side: losses with intervals, galpaca's LoRA less PEFT's, examples a second, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

from bench.adapters.turns import Turn
from bench.adapters.workload import PEFT, Workload
from galpaca.errors import GalpacaError
from galpaca.estimate.bootstrap import Estimate, Paired, paired_bootstrap

OURS = "lora"
# Files of records that no model was trained on.
UNSEEN = ("held_out", "other_subjects")
_LARGEST_RATE_DIFFERENCE = 1e-9  # relative; the same formula, evaluated in another order

Seeded = tuple[str, int]


@dataclass(frozen=True)
class Losses:
    """The losses of one model on some records.

    Attributes:
        nll: of each record, summed over its target tokens, in nats.
        tokens: target tokens of each record.
    """

    nll: list[float]
    tokens: list[int]


ByFile = Mapping[str, Losses]


class Results(NamedTuple):
    """What is known when all is trained.

    Attributes:
        turns: by method and seed.
        losses: of the models of these, by file of records.
        base: losses of the model that all started from.
    """

    turns: Mapping[Seeded, Turn]
    losses: Mapping[Seeded, ByFile]
    base: ByFile

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(method for method, _ in self.turns))

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(seed for _, seed in self.turns))


def measure_losses(model: Path, workload: Workload) -> dict[str, Losses]:
    """The losses of a folder's model, by file of records; of all models in the same way."""
    from galpaca.data.reading import load_records
    from galpaca.data.sources.files import FileSource
    from galpaca.inference.loading import load
    from galpaca.inference.losses import record_losses

    loaded, found = load(str(model), dtype="float32"), {}
    for name in UNSEEN:
        records = load_records(FileSource(workload.path / f"{name}.json")).records
        losses = record_losses(loaded, records)
        found[name] = Losses([one.nll for one in losses], [one.num_targets for one in losses])
    return found


def check_same_recipe(turns: Mapping[Seeded, Turn]) -> None:
    """Raises:
    GalpacaError: galpaca's LoRA and PEFT's had other learning rates, so they are not to be compared.
    """
    for (method, seed), turn in turns.items():
        if method != PEFT or (OURS, seed) not in turns:
            continue
        theirs, ours = turn.outcome.learning_rates, turns[OURS, seed].outcome.learning_rates
        if any(abs(a - b) > _LARGEST_RATE_DIFFERENCE * max(a, b) for a, b in zip(theirs, ours, strict=True)):
            raise GalpacaError(
                "learning rates differ from galpaca's",
                where=f"{method}, seed {seed}",
                why=f"{theirs} and {ours}",
                fix="the schedule of one of them has changed: mend the recipe of the benchmark",
            )


def loss(losses: Losses) -> Estimate:
    """Mean over the target tokens, with its interval over the records."""
    return _paired([losses]).means[0]


def pooled(losses: Sequence[Losses]) -> Losses:
    """Of models that differ in their seed: of each record the sums over all of them."""
    return Losses(
        [sum(values) for values in zip(*(one.nll for one in losses), strict=True)],
        [sum(counts) for counts in zip(*(one.tokens for one in losses), strict=True)],
    )


def difference(ours: Losses, theirs: Losses) -> Estimate:
    """Ours less theirs; both are drawn together."""
    return _paired([theirs, ours]).differences[1]


def _paired(losses: Sequence[Losses]) -> Paired:
    found = paired_bootstrap([one.nll for one in losses], [one.tokens for one in losses])
    assert found is not None, "records without a target"
    return found


def of_method(results: Results, method: str, name: str) -> Losses:
    """Of all its seeds, pooled, on a file of records."""
    return pooled([results.losses[method, seed][name] for seed in results.seeds])


def lora_differences(results: Results, name: str) -> dict[str, Estimate]:
    """galpaca's LoRA less PEFT's on a file of records: of each seed, and pooled; nothing without either."""
    if not {OURS, PEFT} <= set(results.methods):
        return {}
    of_seeds = {
        str(seed): difference(results.losses[OURS, seed][name], results.losses[PEFT, seed][name])
        for seed in results.seeds
    }
    return {**of_seeds, "pooled": difference(of_method(results, OURS, name), of_method(results, PEFT, name))}


def speed(results: Results, method: str) -> float:
    """Examples a second, the median over the seeds."""
    return median(results.turns[method, seed].outcome.examples_per_second for seed in results.seeds)


def peak_bytes(results: Results, method: str) -> int:
    """The largest of all seeds."""
    return max(results.turns[method, seed].peak_bytes for seed in results.seeds)


def figures(results: Results) -> dict[str, Any]:
    """JSON-ready."""
    return {
        "base_loss": {name: asdict(loss(results.base[name])) for name in UNSEEN},
        "methods": {
            method: {
                "loss": {name: asdict(loss(of_method(results, method, name))) for name in UNSEEN},
                "examples_per_second": speed(results, method),
                "peak_bytes": peak_bytes(results, method),
            }
            for method in results.methods
        },
        "lora_less_peft": {
            name: {of: {**asdict(one), "sign": one.sign} for of, one in lora_differences(results, name).items()}
            for name in UNSEEN
        },
        "trainings": [
            {"method": method, "seed": seed, **_of_training(turn, results.losses[method, seed])}
            for (method, seed), turn in results.turns.items()
        ],
    }


def _of_training(turn: Turn, losses: ByFile) -> dict[str, Any]:
    return {
        "loss": {name: asdict(loss(losses[name])) for name in UNSEEN},
        "examples_per_second": turn.outcome.examples_per_second,
        "peak_bytes": turn.peak_bytes,
        "first_training_loss": turn.outcome.losses[0],
        "last_training_loss": turn.outcome.losses[-1],
    }


def table(results: Results) -> Table:
    """A training a row, then each method's seeds together."""
    shown = Table(title="Loss per target token on records not trained on, with 95 % intervals; then all seeds together")
    shown.add_column("method, seed", no_wrap=True)
    for heading in (*(name.replace("_", " ") for name in UNSEEN), "examples\na second", "peak\nMiB"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_row("base", *_loss_cells(results.base), end_section=True)
    for (method, seed), turn in results.turns.items():
        cells = _loss_cells(results.losses[method, seed])
        shown.add_row(f"{method} {seed}", *cells, f"{turn.outcome.examples_per_second:.1f}", _mib(turn.peak_bytes))
    shown.add_section()
    for method in results.methods:
        cells = _loss_cells({name: of_method(results, method, name) for name in UNSEEN})
        shown.add_row(method, *cells, f"{speed(results, method):.1f}", _mib(peak_bytes(results, method)))
    return shown


def _loss_cells(losses: ByFile) -> list[str]:
    return [interval(loss(losses[name])) for name in UNSEEN]


def difference_lines(results: Results) -> list[str]:
    """galpaca's LoRA less PEFT's, in words."""
    return [
        f"galpaca's LoRA less PEFT's, {name.replace('_', ' ')}, "
        f"{'all seeds' if of == 'pooled' else f'seed {of}'}: {interval(one, signed=True)}"
        for name in UNSEEN
        for of, one in lora_differences(results, name).items()
    ]


def interval(estimate: Estimate, *, signed: bool = False) -> str:
    shown = "+.4f" if signed else ".3f"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{shown}}"
    return f"{estimate.value:{shown}} [{estimate.low:{shown}}, {estimate.high:{shown}}]"


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f}"
