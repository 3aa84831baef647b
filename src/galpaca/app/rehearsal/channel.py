"""How the rehearsal's processes on all ranks communicate: files in a shared folder.

The run folder is on a shared file system anyway, and a process that only launches others then needs no torch.
"""

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
    """A command from rank 0 to the other ranks.

    Attributes:
        number: counts from 1; a later order replaces earlier ones.
        to: ids of the receivers, by rank; a file left by an earlier rehearsal names other ids.
        do: ``wait``, ``start``, ``kill`` or ``end``.
        phase: the phase to start.
        code: the exit code to end with.
    """

    number: int
    to: Mapping[str, str]
    do: str
    phase: int = 0
    code: int = 0


@dataclass(frozen=True)
class Report:
    """The reply of another rank.

    Attributes:
        number: number of the last order it carried out.
        code: exit code of its process in this phase, once it has ended.
        stopped: it was stopped by a signal and is gone.
        id: id of the sender.
    """

    number: int = 0
    code: int | None = None
    stopped: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Channel:
    """The communication folder of one rehearsal.

    Args:
        root: parent folder of all rehearsals.
        launch: identifies this launch among others.
    """

    def __init__(self, root: Path, launch: str) -> None:
        self.folder = root / f".ranks-{launch}"

    def open(self) -> None:
        """Creates the folder, on rank 0, after removing what an earlier rehearsal left."""
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
        """The newest order, if it is addressed to this receiver."""
        content = self._read(_ORDER)
        if content is None or receiver not in content["to"].values():
            return None
        return Order(**content)

    def report(self, rank: int, report: Report) -> None:
        with suppress(FileNotFoundError):  # rank 0 has not opened the folder yet; the report is sent again
            replace_file(self.folder / _name(rank), json.dumps(asdict(report)))

    def last_report(self, rank: int) -> Report | None:
        """The last report of a rank."""
        content = self._read(_name(rank))
        return None if content is None else Report(**content)

    def _read(self, name: str) -> dict[str, Any] | None:
        # A look into the folder makes NFS fetch what is new in it; a name alone it would answer from its cache.
        with suppress(FileNotFoundError):
            if any(path.name == name for path in self.folder.iterdir()):
                content: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
                return content
        return None


def _name(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def launch_of(environment: Mapping[str, str]) -> str:
    """An id of this launch, the same on all ranks that one srun or torchrun started."""
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    others = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    names = slurm if slurm[0] in environment and "RANK" not in environment else others
    return re.sub(r"[^\w.]", "-", "-".join(environment.get(name, "0") for name in names))
