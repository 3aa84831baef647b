"""What the ranks of a run wrote into a checkpoint, put together."""

from pathlib import Path

import torch
from safetensors import safe_open


def all_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Flat tensors by ``kind/parameter``."""
    pieces: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - no mapping
                name, _, start = key.rpartition("/")
                pieces.setdefault(name, []).append((int(start), tensors.get_tensor(key)))
    return {
        name: torch.cat([values for _, values in sorted(found, key=lambda one: one[0])])
        for name, found in pieces.items()
    }
