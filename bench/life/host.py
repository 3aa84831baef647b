"""What a life costs its machine: host memory, and checkpoints as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from galpaca.errors import InputError
from galpaca.runs.checkpoints import Manifest, read_manifest
from galpaca.runs.folder import RunFolder

_MEMINFO = Path("/proc/meminfo")


def available_bytes() -> int:
    """Memory of the host that processes could still take."""
    for line in _MEMINFO.read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_MEMINFO} has no MemAvailable")


class Watch:
    """Looks at host memory and at a run's checkpoints, as often as it is called.

    Attributes:
        host_bytes: most memory of this node that was taken since the beginning, by whomever; pinned memory included.
        saved: manifests of all checkpoints that were seen, by step.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.host_bytes = 0
        self.saved: dict[int, Manifest] = {}
        self._before = available_bytes()

    def look(self) -> None:
        self.host_bytes = max(self.host_bytes, self._before - available_bytes())
        for step in self.folder.saved_steps():
            if step not in self.saved:
                try:
                    self.saved[step] = read_manifest(self.folder.checkpoint(step))
                except InputError:  # a newer one has taken its place meanwhile
                    continue

    def figures(self) -> dict[str, Any]:
        """Host memory; and of each checkpoint how long training waited for it and how long writing took."""
        self.look()
        checkpoints = {
            str(step): {"stall_seconds": one.seconds.stall, "write_seconds": one.seconds.write, "bytes": one.num_bytes}
            for step, one in sorted(self.saved.items())
        }
        return {"host_bytes": self.host_bytes, "checkpoints": checkpoints}
