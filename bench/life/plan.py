"""What a life consists of: three runs of one recipe, and the command of each of their starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.results import REPOSITORY
from galpaca.app.rehearsal.plan import environment_alone, environment_of
from galpaca.runs.folder import RunFolder

_DEMO = REPOSITORY / "src" / "galpaca" / "demo"
_BYTES_PER_PARAMETER_IN_A_CHECKPOINT = 12
_EMBEDDED = 5_000


@dataclass(frozen=True)
class Size:
    """A model's sizes, and its step's.

    Attributes:
        examples: of a step.
        max_tokens: budget of a micro-batch.
    """

    num_layers: int
    num_heads: int
    hidden_size: int
    examples: int = 128
    max_tokens: int = 4_096

    @property
    def num_parameters(self) -> int:
        """Of the layers, the positions and the demo's small vocabulary, roughly."""
        return 12 * self.num_layers * self.hidden_size**2 + _EMBEDDED * self.hidden_size


SIZES = {
    "tiny": Size(2, 2, 32, examples=8, max_tokens=1_024),
    "125m": Size(12, 12, 768),
    "1.3b": Size(24, 32, 2_048),
    "6.7b": Size(32, 32, 4_096),
}


@dataclass(frozen=True)
class Start:
    """One time that a run is started.

    Attributes:
        run: its name.
        on_fewer: on fewer ranks than the others, launched by the first rank alone.
    """

    run: str
    on_fewer: bool = False


STRAIGHT, KILLED, MOVED = "straight", "killed", "moved"
# By the number that ranks tell each other.
STARTS: Mapping[int, Start] = {
    1: Start(STRAIGHT),
    2: Start(KILLED),
    3: Start(KILLED),
    4: Start(MOVED),
    5: Start(MOVED, on_fewer=True),
    6: Start(MOVED),
}


@dataclass(frozen=True)
class LifePlan:
    """One life.

    Attributes:
        folder: of its runs; seen by all nodes.
        shape: one of ``SIZES``.
        devices, nodes: processes on a node, and nodes.
        fewer: processes of the start on fewer ranks.
        steps: of a run.
        every_steps: between checkpoints.
        deterministic: with torch's deterministic algorithms, without which FlashAttention's backward adds in any order.
    """

    folder: Path
    shape: str
    accelerator: str
    devices: int
    nodes: int
    fewer: int
    strategy: str
    precision: str
    steps: int
    every_steps: int
    deterministic: bool

    @property
    def num_ranks(self) -> int:
        return self.devices * self.nodes

    @property
    def disk_bytes(self) -> int:
        """Two checkpoints at a time, and the released model of each run."""
        each = SIZES[self.shape].num_parameters
        return each * (2 * _BYTES_PER_PARAMETER_IN_A_CHECKPOINT + 2 * 3)

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.folder / "runs", name)

    def log(self, rank: int) -> Path:
        return self.folder / f"rank-{rank:05d}.log"

    def command(self, number: int) -> list[str]:
        """Of one start; that of a run's later starts differs in the number of ranks at most."""
        start = STARTS[number]
        devices, nodes = (self.fewer, 1) if start.on_fewer else (self.devices, self.nodes)
        return [
            *(sys.executable, "-m", "galpaca.train", *self._recipe(), f"run.name={start.run}"),
            f"compute.deterministic={str(self.deterministic).lower()}",
            *(f"trainer.devices={devices}", f"trainer.num_nodes={nodes}"),
        ]

    def _recipe(self) -> list[str]:
        size = SIZES[self.shape]
        return [
            # A kill and a move must carry its random numbers, too.
            *("model.dropout=0.1", "model=tiny", f"model.tokenizer={_DEMO / 'tokenizer'}", "data=demo"),
            *(f"model.num_layers={size.num_layers}", f"model.num_heads={size.num_heads}"),
            *(f"model.hidden_size={size.hidden_size}", f"model.ffn_size={4 * size.hidden_size}"),
            *(f"batch.examples={size.examples}", f"batch.max_tokens={size.max_tokens}", "optim.lr=1e-4"),
            *(f"trainer={'cpu' if self.accelerator == 'cpu' else 'gpu'}", f"strategy={self.strategy}"),
            *(f"precision={self.precision}", f"trainer.max_steps={self.steps}", "trainer.max_epochs=10000"),
            *(f"checkpoint.every_steps={self.every_steps}", "checkpoint.keep_last=1", "checkpoint.asynchronous=true"),
            *("logger=local", "samples.prompts=null", "hang.minutes=3", "hang.requeue=false"),
            # A kill must find steps behind a checkpoint in the file.
            *("trainer.read_metrics_every_steps=1", f"run.root={self.folder / 'runs'}"),
        ]

    def environment(self, number: int) -> dict[str, str]:
        """Of one start's processes."""
        launcher = environment_alone() if STARTS[number].on_fewer else environment_of(number, os.environ)
        paths = [str(REPOSITORY / "src"), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**launcher, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "GALPACA_MAX_REQUEUES": "0"}
