"""How the rehearsal's processes on all ranks tell each other what to do: files in a folder that all of them see.

The run folder is on such a file system anyway, and a process that only starts others needs no torch for it.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from galpaca.files.atomic import replace_file

_ORDER = "order.json"


@dataclass(frozen=True)
class Order:
    """What rank 0 tells the others to do.

    Attributes:
        number: from 1; a later one takes the place of those before.
        to: the ids of those it is for, by rank. A file that an earlier rehearsal left behind names others.
        do: ``wait``, ``start``, ``kill`` or ``end``.
        phase: to start.
        code: to end with.
    """

    number: int
    to: Mapping[str, str]
    do: str
    phase: int = 0
    code: int = 0


@dataclass(frozen=True)
class Report:
    """What another rank answers.

    Attributes:
        number: of the last order it has carried out.
        code: of its process of the phase, once that has ended.
        stopped: by a signal; it is gone.
        id: of the sender.
    """

    number: int = 0
    code: int | None = None
    stopped: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Channel:
    """One rehearsal's folder.

    Args:
        place: where all rehearsals are.
        launch: what tells this start by its launcher from others.
    """

    def __init__(self, place: Path, launch: str) -> None:
        self.folder = place / f".ranks-{launch}"

    def open(self) -> None:
        """Makes the folder, on rank 0. What an earlier rehearsal has left is moved away first."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self.folder.exists():
            self.close()
        self.folder.mkdir()

    def close(self) -> None:
        """Removes the folder, on rank 0."""
        doomed = self.folder.with_name(f".gone-{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            self.folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def give(self, order: Order) -> None:
        replace_file(self.folder / _ORDER, json.dumps(asdict(order)))

    def order(self, receiver: str) -> Order | None:
        """The newest order, if it is for this one."""
        content = self._read(_ORDER)
        if content is None or receiver not in content["to"].values():
            return None
        return Order(**content)

    def report(self, rank: int, report: Report) -> None:
        with suppress(FileNotFoundError):  # rank 0 has not opened the folder yet, and this is told again
            replace_file(self.folder / _name(rank), json.dumps(asdict(report)))

    def told(self, rank: int) -> Report | None:
        """What a rank has reported last."""
        content = self._read(_name(rank))
        return None if content is None else Report(**content)

    def _read(self, name: str) -> dict[str, Any] | None:
        # A look into the folder makes NFS ask for what is new in it; a name alone it would answer from its cache.
        with suppress(FileNotFoundError):
            if any(path.name == name for path in self.folder.iterdir()):
                content: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
                return content
        return None


def _name(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def launch_of(environment: Mapping[str, str]) -> str:
    """The same on all ranks that one srun or torchrun has started."""
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    others = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    names = slurm if slurm[0] in environment and "RANK" not in environment else others
    return re.sub(r"[^\w.]", "-", "-".join(environment.get(name, "0") for name in names))
