"""A step's largest costs, by the profiler."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

LARGEST = 10
_CUDA = torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]  # documented, but not declared


class LargestCosts(L.Callback):
    """Profiles one step and keeps the kernels that took the device longest.

    Args:
        step: its number, from 0.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.rows: list[dict[str, Any]] = []
        self._profile: Any = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch.index == self.step:
            torch.cuda.synchronize()
            self._profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
            self._profile.__enter__()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch.index != self.step:
            return
        torch.cuda.synchronize()
        self._profile.__exit__(None, None, None)
        # Kernels only: an operation that launches one, or a range around it, would count its time a second time.
        kernels = [
            event
            for event in self._profile.key_averages()
            if event.device_type == _CUDA and not event.is_user_annotation
        ]
        total = sum(event.self_device_time_total for event in kernels)
        kernels.sort(key=lambda event: -event.self_device_time_total)
        self.rows = [
            {
                "kernel": event.key[:100],
                "calls": event.count,
                "seconds": event.self_device_time_total / 1e6,
                "share": event.self_device_time_total / total,
            }
            for event in kernels[:LARGEST]
        ]
        self._profile = None
