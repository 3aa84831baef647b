"""``python -m bench.life.deterministic``: ``train.py`` with torch's deterministic algorithms, on every rank."""

import os
import sys

# cuBLAS reads it once, before the first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from galpaca.app.entrypoint import train_with_hydra

if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    # Costs time, and whatever is read was written before.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    sys.exit(train_with_hydra())
