"""Lightning's checkpoints, each in a fresh folder that gets its name when it is complete."""

from __future__ import annotations

import shutil
from typing import Any

import lightning as L

from galpaca.data.collate import StepBatch
from galpaca.errors import StoppedBySignal
from galpaca.runs.folder import RunFolder, sync_entry, sync_folder
from galpaca.runs.metrics import MetricsFile
from galpaca.training.metrics import StepMetrics

# A file, or with FSDP a folder of shards.
STATE = "state.ckpt"


class Checkpointer(L.Callback):
    """Saves every ``every_steps`` steps, at the last step, and when the run was asked to stop.

    Args:
        folder: the run's.
        metrics: whose lines must be on disk before a checkpoint counts, and who knows of a stop.
        file: where those lines go; None on ranks other than 0.
        num_steps: of the whole run.
        every_steps: steps between checkpoints.
        keep_last: how many of them stay.
    """

    def __init__(
        self,
        folder: RunFolder,
        metrics: StepMetrics,
        file: MetricsFile | None,
        *,
        num_steps: int,
        every_steps: int,
        keep_last: int,
    ) -> None:
        self.folder, self.metrics, self.file = folder, metrics, file
        self.num_steps, self.every_steps, self.keep_last = num_steps, every_steps, keep_last

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        step = batch.index + 1
        last = step == self.num_steps
        if step % self.every_steps == 0 or last or self.metrics.stop_agreed:
            self.save(trainer, step)
        if self.metrics.stop_agreed and not last:
            raise StoppedBySignal(f"stopped after step {step}, which is saved")
        if last:
            trainer.should_stop = True  # makes Lightning validate once more, wherever the last step falls

    def save(self, trainer: L.Trainer, step: int) -> None:
        """Saves on all ranks together. The checkpoint exists from the moment its folder has its name."""
        self.metrics.flush(trainer)
        final = self.folder.checkpoint(step)
        partial = final.with_name(f".{final.name}.partial")
        if trainer.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        trainer.strategy.barrier("galpaca: checkpoint folder")
        trainer.save_checkpoint(partial / STATE)
        if trainer.is_global_zero:
            if self.file is not None:
                self.file.sync()
            sync_folder(partial)
            partial.rename(final)
            sync_entry(self.folder.checkpoints)
            self._remove_old()
        trainer.strategy.barrier("galpaca: checkpoint committed")
        self.metrics.restart_clock(trainer)

    def _remove_old(self) -> None:
        for step in self.folder.saved_steps()[: -self.keep_last]:
            old = self.folder.checkpoint(step)
            doomed = old.with_name(f".{old.name}.partial")
            old.rename(doomed)  # so that a half-removed folder is no checkpoint
            shutil.rmtree(doomed)
