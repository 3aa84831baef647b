"""A callback that fails as torch does when a GPU is full."""

from typing import Any

import lightning as L
import torch


class OutOfMemory(L.Callback):
    def on_train_batch_start(self, *_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nA long story follows.")
