"""``galpaca estimate``: what a run takes, before it is queued."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rich.markup import escape
from rich.table import Table

from galpaca.app.config.composition import compose
from galpaca.app.console import make_console, show_rows
from galpaca.app.estimate.advice import Advice, advice, without_strategy
from galpaca.app.estimate.candidate import Candidate
from galpaca.app.estimate.job import job
from galpaca.app.estimate.tracing import traced_memory
from galpaca.errors import InputError, Problems
from galpaca.estimate.gpus import gpu_named
from galpaca.estimate.interconnects import USUAL, node_gb_per_second
from galpaca.estimate.memory import MemoryParts
from galpaca.estimate.speed import Cluster
from galpaca.formatting import format_bytes

# The card of this site's jobs; slurm/site.env sets it.
VARIABLE = "GALPACA_GPU"
_USUAL_GPU = "A100-80"
_GIB = 1 << 30
# Of the most that a card takes, what training takes on average.
_POWER_SHARE = 0.8
_MOST_OF_ANYTHING, _MOST_RECORDS = 100_000, 10_000_000


@dataclass(frozen=True)
class EstimateOptions:
    """Options of ``galpaca estimate``.

    Attributes:
        overrides: overrides for ``train.py``.
        gpus: names of cards, separated by commas; None takes the site's.
        gpus_per_node, nodes: numbers, separated by commas; None takes the configuration's.
        interconnect: between nodes.
        records: of the data; None takes what the configuration expects, or Alpaca's number.
        trace: count memory on fake tensors instead of computing it.
        as_json: print JSON instead of a table.
    """

    overrides: Sequence[str]
    gpus: str | None = None
    gpus_per_node: str | None = None
    nodes: str | None = None
    interconnect: str = USUAL
    records: int | None = None
    trace: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Estimated:
    """A candidate with what follows from it.

    Attributes:
        memory: the candidate's.
        overrides: of its command.
    """

    candidate: Candidate
    memory: MemoryParts
    overrides: Sequence[str]
    advice: Sequence[Advice]

    def to_json(self) -> dict[str, Any]:
        one = self.candidate
        parts = {name: round(value / _GIB, 2) for name, value in vars(self.memory).items()}
        return {
            "gpu": one.cluster.gpu.name,
            "gpus_per_node": one.cluster.devices,
            "nodes": one.cluster.num_nodes,
            "verdict": one.verdict,
            "calibrated": False,
            "memory_gib": {"total": round(self.memory.total / _GIB, 2), **parts},
            "host_memory_gib": round(one.host_bytes / _GIB, 1),
            "disk_gib": round(one.disk_bytes / _GIB, 1),
            "hours": _range(one.hours),
            "gpu_hours": _range(one.gpu_hours),
            "sbatch": job(one, self.overrides),
            "advice": [
                {
                    "change": item.change,
                    "memory_gib": round(item.candidate.memory.total / _GIB, 2),
                    "hours": _range(item.candidate.hours),
                }
                for item in self.advice
            ],
        }


def estimate(options: EstimateOptions) -> None:
    """Prints what a run takes on each of the machines that are named.

    Raises:
        InputError: a configuration that does not compose, or of an unknown model; an unknown card or interconnect; a
            number of cards that the strategy cannot take.
    """
    clusters = _clusters(options)
    if len(clusters) == 1:
        one = _estimated(clusters[0], options, advises=True)
        if options.as_json:
            print(json.dumps(one.to_json()))
        else:
            _show(one)
        return
    found = [(cluster, _estimated_or_not(cluster, options)) for cluster in clusters]
    refused = [one for _, one in found if isinstance(one, InputError)]
    if len(refused) == len(found):
        raise refused[0]
    if options.as_json:
        print(json.dumps([_row_json(*pair) for pair in found]))
    else:
        _show_table(found)


def _estimated_or_not(cluster: Cluster, options: EstimateOptions) -> Estimated | InputError:
    """One of several: what cannot be estimated does not keep the others from it."""
    try:
        return _estimated(cluster, options, advises=options.as_json)
    except InputError as error:
        return error


def _row_json(cluster: Cluster, found: Estimated | InputError) -> dict[str, Any]:
    if isinstance(found, Estimated):
        return found.to_json()
    machine = {"gpu": cluster.gpu.name, "gpus_per_node": cluster.devices, "nodes": cluster.num_nodes}
    return {**machine, "error": found.what}


def _clusters(options: EstimateOptions) -> list[Cluster]:
    config, _ = compose(options.overrides)
    names = (options.gpus or os.environ.get(VARIABLE) or _USUAL_GPU).split(",")
    problems = Problems()
    gpus = [problems.collect(partial(gpu_named, name.strip())) for name in names]
    between = problems.collect(lambda: node_gb_per_second(options.interconnect))
    devices = _numbers(problems, "--gpus-per-node", options.gpus_per_node, config.trainer.devices)
    nodes = _numbers(problems, "--nodes", options.nodes, config.trainer.num_nodes)
    if options.records is not None and not 1 <= options.records <= _MOST_RECORDS:
        what = f"must be from 1 to {_MOST_RECORDS:,}, got {options.records:,}"
        problems.add(what, where="--records", fix="--records 52002")
    problems.raise_any()
    assert between is not None
    return [
        Cluster(gpu, each, count, between) for gpu in gpus if gpu is not None for count in nodes for each in devices
    ]


def _numbers(problems: Problems, where: str, given: str | None, default: int) -> list[int]:
    found = []
    for word in (str(default) if given is None else given).split(","):
        if word.strip().isdecimal() and 0 < int(word) <= _MOST_OF_ANYTHING:
            found.append(int(word))
        else:
            problems.add(
                f"must be numbers from 1 to {_MOST_OF_ANYTHING:,}, got {word!r}",
                where=where,
                fix=f"e.g. {where} 4, or 1,2,4",
            )
    return found


def _estimated(cluster: Cluster, options: EstimateOptions, *, advises: bool) -> Estimated:
    given = [*options.overrides, f"trainer.devices={cluster.devices}", f"trainer.num_nodes={cluster.num_nodes}"]
    config, _ = compose(given)
    if cluster.num_ranks == 1 and config.strategy.factory.sharding(2, 1).gathers:
        given = [*without_strategy(given), "strategy=single"]  # there is nobody to share with
        config, _ = compose(given)
    _check_ranks(cluster, config.batch.examples, config.strategy.factory.max_ranks, config.strategy.factory.name)
    candidate = Candidate.of(config, cluster, options.records)
    if options.trace:
        candidate = replace(candidate, traced=traced_memory(candidate, given))
    return Estimated(candidate, candidate.memory, given, advice(candidate, given) if advises else [])


def _check_ranks(cluster: Cluster, examples: int, most: int | None, strategy: str) -> None:
    if cluster.num_ranks > examples:
        raise InputError(
            f"{cluster.num_ranks} GPUs share a step of {examples} examples: some would have none",
            where="--gpus-per-node, --nodes",
            fix=f"{examples} GPUs at most, or a larger batch.examples",
        )
    if most is not None and cluster.num_ranks > most:
        raise InputError(
            f"strategy={strategy} is for {most} GPU, and this machine has {cluster.num_ranks}",
            where="strategy",
            fix="strategy=fsdp, fsdp2 or ddp; or --gpus-per-node 1 --nodes 1",
        )


def _show(one: Estimated) -> None:
    console, candidate = make_console(), one.candidate
    memory, cluster = one.memory, candidate.cluster
    low, high = candidate.hours
    gpu_low, gpu_high = candidate.gpu_hours
    kilowatts = _POWER_SHARE * cluster.gpu.watts / 1000
    parts = ", ".join(
        f"{name.replace('_', ' ')} {value / _GIB:.1f}" for name, value in vars(memory).items() if value >= _GIB / 20
    )
    planned = candidate.planned
    rows = [
        ("machine", f"{cluster.num_nodes} x {cluster.devices} {cluster.gpu.name}"),
        ("verdict", f"{candidate.verdict} (uncalibrated: nobody has measured this on such a card)"),
        ("memory", f"{memory.total / _GIB:.1f} of {cluster.gpu.memory_gib:.1f} GiB of a GPU: {parts}"),
        ("host memory", f"{format_bytes(candidate.host_bytes)} of a node"),
        ("disk", format_bytes(candidate.disk_bytes)),
        (
            "steps",
            f"{planned.num_steps:,} of {candidate.config.batch.examples} examples, about {planned.mean_tokens:,.0f} "
            f"tokens and {planned.mean_micro_batches:.1f} micro-batches each",
        ),
        ("assumed", f"{candidate.num_records:,} records of lengths as Alpaca's: no record was read"),
        ("hours", f"{low:.2g} to {high:.2g}, {gpu_low:.2g} to {gpu_high:.2g} GPU-hours (uncalibrated)"),
        ("energy", f"{gpu_low * kilowatts:.2g} to {gpu_high * kilowatts:.2g} kWh of the GPUs"),
        *(("job", line) for line in job(candidate, one.overrides)),
        *(("advice", _advised(item)) for item in one.advice),
    ]
    show_rows(console, f"estimated for {candidate.config.run.name}", rows)


def _advised(item: Advice) -> str:
    low, high = item.candidate.hours
    gpus = item.candidate.cluster.num_ranks
    another = "; another recipe, so needs a new run.name" if item.changes_recipe else ""
    memory = item.candidate.memory.total / _GIB
    return f"{item.change}: {memory:.1f} GiB, {low:.2g} to {high:.2g} h on {gpus} GPU{'s' * (gpus > 1)}{another}"


def _show_table(found: Sequence[tuple[Cluster, Estimated | InputError]]) -> None:
    table = Table(box=None, header_style="cyan")
    for heading in ("gpu", "nodes x GPUs", "GiB", "of", "verdict", "hours", "GPU-hours"):
        table.add_column(heading, no_wrap=True)
    for cluster, one in found:
        cells = _cells(one) if isinstance(one, Estimated) else ("", "", f"not estimated: {one.what}", "", "")
        table.add_row(escape(cluster.gpu.name), f"{cluster.num_nodes} x {cluster.devices}", *map(escape, cells))
    console = make_console()
    console.print(table)
    console.print("uncalibrated: memory and hours are arithmetic, nobody has measured them on such cards", style="dim")


def _cells(one: Estimated) -> tuple[str, ...]:
    candidate = one.candidate
    (low, high), (gpu_low, gpu_high) = candidate.hours, candidate.gpu_hours
    return (
        f"{one.memory.total / _GIB:.1f}",
        f"{candidate.cluster.gpu.memory_gib:.0f}",
        candidate.verdict,
        f"{low:.2g} to {high:.2g}",
        f"{gpu_low:.2g} to {gpu_high:.2g}",
    )


def _range(both: tuple[float, float]) -> dict[str, float]:
    return {"low": round(both[0], 3), "high": round(both[1], 3)}
