"""Where more GPUs stop helping: the published recipes on 1 to 64 nodes, by ``galpaca estimate``'s arithmetic.

A page marks where a table goes by ``<!-- scaling: EXPERIMENT -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

from collections.abc import Iterator

import marks

from galpaca.app.config.composition import compose
from galpaca.app.estimate.candidate import Candidate
from galpaca.errors import InputError
from galpaca.estimate.gpus import gpu_named
from galpaca.estimate.speed import Cluster

_GPU, _DEVICES, _NODE_GB_PER_SECOND = "A100-80", 4, 88.0  # 4x-hdr200
_NODES = (1, 2, 4, 8, 16, 32, 64)
_WAYS = (
    ("full shard", ("strategy=fsdp",)),
    ("shards within a node", ("strategy=fsdp", "strategy.sharding_strategy=HYBRID_SHARD")),
    ("fsdp2", ("strategy=fsdp2",)),
)
_HEADINGS = ("nodes x GPUs", "sharding", "GiB of a GPU", "examples of a GPU", "seconds of a step", "hours", "GPU-hours")


def filled(text: str) -> str:
    """A page with its tables."""
    return marks.filled(text, "scaling", table)


def table(experiment: str) -> str:
    """A row for each number of nodes and each way that fits."""
    rows = [_HEADINGS, ["---"] * len(_HEADINGS), *_rows(experiment)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _rows(experiment: str) -> Iterator[list[str]]:
    for nodes in _NODES:
        cluster = Cluster(gpu_named(_GPU), _DEVICES, nodes, _NODE_GB_PER_SECOND)
        for name, overrides in _WAYS:
            config, _ = compose([f"+experiment={experiment}", *overrides])
            if cluster.num_ranks > config.batch.examples or (nodes == 1 and "within" in name):
                continue
            try:
                one = Candidate.of(config, cluster)
                if one.verdict == "does not fit":
                    continue
            except InputError:
                continue
            share = config.batch.examples / cluster.num_ranks
            (low, high), (gpu_low, gpu_high) = one.hours, one.gpu_hours
            yield [
                f"{nodes} x {_DEVICES}",
                name,
                f"{one.memory.total / 2**30:.0f}",
                f"{share:g}",
                f"{one.step_seconds:.2f}",
                f"{low:.2f} to {high:.2f}",
                f"{gpu_low:.0f} to {gpu_high:.0f}",
            ]
