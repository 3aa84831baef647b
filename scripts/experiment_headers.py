"""What an experiment takes, in its header: by ``galpaca estimate``, for the machine that it is meant for.

A header marks where it goes by a line that begins with ``# Estimated by``; lines below it that are indented follow.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import wrap

from galpaca.app.config.composition import compose
from galpaca.app.config.schema import config_folder
from galpaca.app.estimate.candidate import Candidate
from galpaca.estimate.gpus import gpu_named
from galpaca.estimate.speed import Cluster
from galpaca.formatting import format_bytes

_GIB = 1 << 30
_WIDTH = 106
_BLOCK = re.compile(r"^# Estimated by .*\n(?:#   .*\n)+", re.MULTILINE)
# Of each experiment: card, and cards of a node; nodes are the experiment's own.
MACHINES = {
    "galpaca125m": ("A10", 1),
    "galpaca1b": ("A100-40", 1),
    "galpaca67b": ("A100-80", 4),
    "galpaca30b": ("A100-80", 4),
    "galpaca1b_lora": ("A10", 1),
    "galpaca67b_lora": ("A10", 1),
    "galpaca67b_qlora": ("A10", 1),
    "galpaca30b_qlora": ("A100-40", 1),
}


def experiments() -> list[Path]:
    return [config_folder() / "experiment" / f"{name}.yaml" for name in MACHINES]


def filled(path: Path, text: str) -> str:
    """An experiment's file with its estimate."""
    return _BLOCK.sub(lambda _: block(path.stem), text, count=1)


def block(name: str) -> str:
    """The lines, for comments of YAML."""
    gpu, devices = MACHINES[name]
    config, _ = compose([f"+experiment={name}"])
    nodes = config.trainer.num_nodes
    one = Candidate.of(config, Cluster(gpu_named(gpu), devices, nodes))
    command = f"galpaca estimate +experiment={name} --gpu {gpu}"
    low, high = one.hours
    shown = {key.replace("_", " "): value / _GIB for key, value in vars(one.memory).items() if value >= _GIB / 20}
    parts = wrap("(" + ", ".join(f"{key} {gib:.1f}" for key, gib in shown.items()) + ")", _WIDTH)
    where = f"{devices} x {gpu}" if nodes == 1 else f"{nodes} x {devices} x {gpu}"
    rows = (
        f"memory  {one.memory.total / _GIB:.1f} of {one.cluster.gpu.memory_gib:.1f} GiB of a GPU: {one.verdict}",
        *(f"        {line}" for line in parts),
        f"hours   {low:.1f} to {high:.1f} on {where}",
        f"host    {format_bytes(one.host_bytes)} of a node; disk {format_bytes(one.disk_bytes)}",
    )
    return f"# Estimated by `{command}`, measured on no card:\n" + "".join(f"#   {row}\n" for row in rows)
