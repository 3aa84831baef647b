"""What a rehearsal runs: the run's own command with a few keys changed."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from galpaca.app.config.schema import Config
from galpaca.errors import InputError
from galpaca.runs.folder import RunFolder

_FOLDER = "rehearsal"
# Lightning's default under SLURM is 15000 plus the last digits of the job; phases keep clear of it and of each other.
_PORTS_APART = 3000
_FIRST_PORT = 15000


@dataclass(frozen=True)
class RehearsalPlan:
    """The plan of one run's rehearsal.

    Attributes:
        config: configuration of the real run.
        overrides: overrides that it was composed from.
        num_steps: number of steps to take.
    """

    config: Config
    overrides: Sequence[str]
    num_steps: int

    @property
    def root(self) -> Path:
        """Parent folder of all rehearsals."""
        return Path(self.config.run.root) / _FOLDER

    @property
    def home(self) -> Path:
        """The rehearsal's own folder, removed at the end."""
        return self.root / self._flat_name

    @property
    def lock(self) -> Path:
        return self.root / f".{self._flat_name}.lock"

    @property
    def folder(self) -> RunFolder:
        """Run folder of the rehearsal."""
        return RunFolder(Path(self.config.run.root), f"{_FOLDER}/{self._flat_name}/run")

    @property
    def every_steps(self) -> int:
        """Steps between checkpoints: the run is killed after the first and ends with the second."""
        most = min(self.num_steps, self.config.trainer.max_steps or self.num_steps)
        return max(1, most // 2)

    def log(self, rank: int) -> Path:
        return self.home / f"rank-{rank:05d}.log"

    @property
    def command(self) -> list[str]:
        """The training command, the same in all phases: the second resumes where the first was killed."""
        kept = [override for override in self.overrides if not re.match(r"[+~]*logger[.=]", override)]
        changed = [
            f"run.name='{self.folder.name}'",
            "run.accept_changes=false",
            f"logger={'csv' if self.config.callbacks else 'local'}",  # a callback may insist on one
            f"trainer.longest_steps={self.num_steps}",
            f"trainer.val_every_steps={self.num_steps}",
            f"samples.every_steps={self.num_steps}",
            f"checkpoint.every_steps={self.every_steps}",
            "checkpoint.every_minutes=null",
            "checkpoint.every_epoch=false",
            "checkpoint.keep_last=1",
            "checkpoint.keep_every=null",
            "checkpoint.keep_best=false",
            "release.checkpoint=last",
            "trainer.early_stopping_patience=null",
            "hang.requeue=false",
        ]
        return [sys.executable, "-m", "galpaca.train", *kept, *changed]

    @property
    def _flat_name(self) -> str:
        return self.config.run.name.replace("/", "--")


def check_name(config: Config) -> None:
    """Checks that the real run does not use the folder of rehearsals.

    Raises:
        InputError: it does, or its name is invalid.
    """
    name = RunFolder(Path(config.run.root), config.run.name).name
    if name.partition("/")[0] == _FOLDER:
        raise InputError(f"{_FOLDER}/ is reserved for rehearsals", where="run.name", fix="run.name=ANOTHER")


def environment_of(phase: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The launcher's variables with a separate port per phase: a killed process's port may still be in use."""
    found = {**environment, "GALPACA_MAX_REQUEUES": "0"}  # a rehearsal's run does not bring its job back
    port = found.get("MASTER_PORT")
    if port is None and "SLURM_JOB_ID" in found:
        port = str(_FIRST_PORT + int(found["SLURM_JOB_ID"][-4:]))
    if port is not None:
        down = int(port) >= _FIRST_PORT
        found["MASTER_PORT"] = str(int(port) - phase * _PORTS_APART * (1 if down else -1))
    if "TORCHELASTIC_USE_AGENT_STORE" in found:  # it still holds what the killed processes exchanged
        found["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    return found


# By which a process knows that it is one of several.
_OF_LAUNCHERS = re.compile(r"(RANK|WORLD_SIZE|LOCAL_|GROUP_|ROLE_|NODE_RANK|MASTER_|TORCHELASTIC_|SLURM_)")


def environment_alone() -> dict[str, str]:
    """The environment of a process that is not a rank."""
    return {name: value for name, value in os.environ.items() if not _OF_LAUNCHERS.match(name)}
