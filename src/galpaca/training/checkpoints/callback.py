"""When checkpoints are taken, and when they are committed."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L

from galpaca.data.collate import StepBatch
from galpaca.errors import GalpacaError, StoppedBySignal
from galpaca.files.checksums import FileFacts
from galpaca.model.tensors import Shapes
from galpaca.runs.checkpoints import Manifest, Retention, commit, partial_of, retire
from galpaca.runs.folder import RunFolder
from galpaca.runs.metrics import MetricsFile, validation_losses
from galpaca.training.callbacks.metrics import StepMetrics
from galpaca.training.checkpoints.store import CheckpointStore
from galpaca.training.consensus import Consensus
from galpaca.training.strategies import StepStrategy


@dataclass(frozen=True)
class Cadence:
    """After which steps to take a checkpoint, besides the last step and a stop.

    Attributes:
        every_steps: steps between checkpoints.
        every_minutes: also when the last checkpoint is this old.
        every_epoch_steps: steps of an epoch, if checkpoints are also taken at the end of each.
    """

    every_steps: int | None
    every_minutes: float | None = None
    every_epoch_steps: int | None = None

    def due(self, step: int) -> bool:
        return any(every is not None and step % every == 0 for every in (self.every_steps, self.every_epoch_steps))


class Checkpointer(L.Callback):
    """Takes checkpoints, has them written asynchronously, and commits them when all ranks have written.

    Ranks tell each other along with the figures of their steps, which costs no collective of its own.

    Args:
        folder: run folder.
        store: this rank's side of the writing.
        consensus: of the ranks: whether they stop, and whether all have written.
        metrics: whose lines must be on disk before a checkpoint counts.
        file: file of those lines; None on ranks other than 0.
        num_steps: steps of the whole run.
        cadence: when to take checkpoints.
        retention: which checkpoints to keep.
        asynchronous: continue training while a checkpoint is written.
        recipe: recipe of the run, for the manifest.
        shapes: shapes of the trained parameters, for the manifest.
        tell: receives metrics of each committed checkpoint, on rank 0.
    """

    def __init__(
        self,
        folder: RunFolder,
        store: CheckpointStore,
        consensus: Consensus,
        metrics: StepMetrics,
        file: MetricsFile | None,
        *,
        num_steps: int,
        cadence: Cadence,
        retention: Retention,
        asynchronous: bool,
        recipe: Mapping[str, Any],
        shapes: Shapes,
        tell: Callable[[Mapping[str, float]], None] = lambda figures: None,
    ) -> None:
        self.folder, self.store, self.consensus, self.metrics, self.file = folder, store, consensus, metrics, file
        self.num_steps, self.cadence, self.retention, self.asynchronous = num_steps, cadence, retention, asynchronous
        self.recipe, self.shapes, self.tell = recipe, shapes, tell
        self._uncommitted: Manifest | None = None
        self._committed: list[Mapping[str, float]] = []
        self._taken_at = time.monotonic()
        self._saved_step = 0
        # Each rank's word: the step it has written last, whether writing failed, and whether time is up.
        self._written = consensus.ask(lambda: self.store.written_step)
        self._failed = consensus.ask(lambda: self.store.background.error is not None)
        self._minutes_up = consensus.ask(self._is_time_up)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        step = batch.index + 1
        last, stop = step == self.num_steps, self.consensus.agreed_stop
        self._settle(trainer)
        if self.cadence.due(step) or any(self._minutes_up.ranks[:1]) or last or stop:
            self.save(trainer, step, wait=last or bool(stop) or not self.asynchronous)
        if stop and not last:
            raise StoppedBySignal(f"stopped after step {step}, which is saved", stop, agreed=True)
        if last:
            trainer.should_stop = True  # makes Lightning validate once more, wherever the last step falls

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        stop, step = self.consensus.agreed_stop, trainer.global_step
        if not stop:
            return
        if self._saved_step == step:
            self.finish(trainer)
        else:
            self.save(trainer, step, wait=True)
        told = f"stopped in the validation after step {step}, which is saved; resuming starts with that validation"
        raise StoppedBySignal(told, stop, agreed=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.store.background.wait()
        if trainer.is_global_zero and self._uncommitted is not None:
            shutil.rmtree(self._partial(self._uncommitted.step), ignore_errors=True)

    def save(self, trainer: L.Trainer, step: int, *, wait: bool) -> None:
        """Takes a checkpoint on all ranks together.

        Args:
            step: step that was just taken.
            wait: wait until it is committed.
        """
        began = time.perf_counter()
        self.store.background.wait()  # where the one before is still being written
        self.metrics.flush(trainer, share=True)
        self._settle(trainer)
        trainer.save_checkpoint(self._partial(step), storage_options={"beside": not wait})
        if wait:
            self.store.background.wait()
        self._uncommitted = Manifest(
            step=step,
            num_ranks=trainer.world_size,
            parameters=self.shapes,
            recipe=self.recipe,
            metrics=self.file.facts() if self.file is not None else FileFacts(0, ""),
            files={},
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            seconds={"stall": round(time.perf_counter() - began, 4)},
            optimizer=self.store.saved_optimizer,
        )
        self._taken_at, self._saved_step = time.monotonic(), step
        self._minutes_up.ranks = []  # answered; else it would be true until the next reading
        if wait:
            self.finish(trainer)
        self.metrics.restart_clock(trainer)

    def finish(self, trainer: L.Trainer) -> None:
        """Waits until the checkpoint in progress is committed."""
        for _ in ("the ranks' files", "the commit"):
            self.store.background.wait()
            self.metrics.flush(trainer, share=True)
            self._settle(trainer)

    def go_back(self, trainer: L.Trainer) -> int:
        """Restores weights and the optimizer's state of the newest checkpoint, on all ranks together.

        Returns:
            Its step; 0 if there is none, in which case nothing changes.
        """
        strategy = cast(StepStrategy, trainer.strategy)
        step = int(strategy.broadcast(self.folder.last_saved_step()))
        if step:
            optimizer = strategy.optimizers[0]
            optimizer.state.clear()
            self.store.load(self.folder.checkpoint(step), strategy.parts(), optimizer)
            strategy.weights_replaced()
        return step

    def _settle(self, trainer: L.Trainer) -> None:
        """Acts on what ranks have last told each other: the same on all of them."""
        if any(self._failed.ranks):
            self._give_up(trainer)
        while self._committed:
            self.tell(self._committed.pop(0))
        manifest = self._uncommitted
        if manifest is not None and self._written.ranks and min(self._written.ranks) >= manifest.step:
            self._uncommitted = None
            if trainer.is_global_zero:
                self.store.background.start(partial(self._commit, manifest))

    def _commit(self, manifest: Manifest) -> None:
        checkpoint = self.folder.checkpoint(manifest.step)
        if self.file is not None:
            self.file.sync()
        seconds = {**manifest.seconds, "write": round(self.store.write_seconds, 4)}
        complete = commit(checkpoint, manifest, seconds)
        retire(self.folder, self.retention, validation_losses(self.folder.metrics))
        figures = {f"checkpoint_{name}_seconds": value for name, value in seconds.items()}
        self._committed.append({"step": manifest.step, "checkpoint_bytes": complete.num_bytes, **figures})

    def _give_up(self, trainer: L.Trainer) -> None:
        self.store.background.wait()
        trainer.strategy.barrier("galpaca: nobody writes any more")
        failed = next(rank for rank, has_failed in enumerate(self._failed.ranks) if has_failed)
        reason, full = trainer.strategy.broadcast(_reason(self.store.background.error), src=failed)
        steps = self.folder.saved_steps()
        mend = "free disk space" if full else "check the disk"
        if trainer.is_global_zero:
            self.folder.remove_partial()
        raise GalpacaError(
            f"cannot write a checkpoint: {reason}",
            where=self.folder.checkpoints,
            why=f"the last complete checkpoint is step {steps[-1]}" if steps else "there is no earlier checkpoint",
            fix=f"{mend}, then rerun the command to resume from it"
            if steps
            else f"{mend} and start again, or set run.root=FOLDER on another disk",
        )

    def _is_time_up(self) -> bool:
        minutes = self.cadence.every_minutes
        return minutes is not None and time.monotonic() - self._taken_at >= 60 * minutes

    def _partial(self, step: int) -> Path:
        return partial_of(self.folder.checkpoint(step))


def _reason(error: Exception | None) -> tuple[str, bool]:
    """The reason in words, and whether the disk is full."""
    told = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return told, getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
