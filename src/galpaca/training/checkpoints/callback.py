"""When checkpoints are taken, and when they are committed."""

import errno
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L

from galpaca.data.collate import StepBatch
from galpaca.errors import GalpacaError, StoppedBySignal
from galpaca.files.checksums import FileFacts
from galpaca.runs.checkpoints import Manifest, Retention, SaveSeconds, commit, partial_of, retire
from galpaca.runs.folder import RunFolder
from galpaca.runs.lines import CheckpointLine
from galpaca.runs.metrics import MetricsFile, validation_losses
from galpaca.runs.provenance import utc_now
from galpaca.runs.recipe import Recipe
from galpaca.training.callbacks.metrics import StepMetrics
from galpaca.training.checkpoints.store import CheckpointStore
from galpaca.training.specs import CheckpointSpec
from galpaca.training.strategies.step_strategy import StepStrategy


@dataclass(frozen=True)
class SavedRun:
    """The run whose checkpoints are taken.

    Attributes:
        folder: run folder.
        recipe: recipe of the run, for the manifests.
        num_steps: steps of the whole run.
        steps_per_epoch: steps of an epoch.
    """

    folder: RunFolder
    recipe: Recipe
    num_steps: int
    steps_per_epoch: int


class Checkpointer(L.Callback):
    """Takes checkpoints, has them written asynchronously, and commits them when all ranks have written.

    Ranks share it along with the figures of their steps, which costs no collective of its own.

    Args:
        run: the run.
        spec: when to take checkpoints, and which of them to keep.
        store: this rank's side of the writing.
        metrics: whose lines must be on disk before a checkpoint counts; along with them ranks agree.
        file: file of those lines; None on ranks other than 0.
        announce: receives the lines of committed checkpoints, on rank 0.
    """

    def __init__(
        self,
        run: SavedRun,
        spec: CheckpointSpec,
        store: CheckpointStore,
        metrics: StepMetrics,
        file: MetricsFile | None,
        announce: Callable[[Sequence[CheckpointLine]], None] = lambda lines: None,
    ) -> None:
        self.run, self.spec, self.store, self.metrics, self.file = run, spec, store, metrics, file
        self.folder, self.consensus, self.announce = run.folder, metrics.consensus, announce
        self._uncommitted: Manifest | None = None
        self._committed: list[CheckpointLine] = []
        self._taken_at = time.monotonic()
        self._saved_step = 0
        # Each rank's word: the step it has written last, whether writing failed, and whether time is up.
        self._written = self.consensus.poll(lambda: self.store.written_step)
        self._failed = self.consensus.poll(lambda: self.store.background.error is not None)
        self._minutes_up = self.consensus.poll(self._is_time_up)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_step = trainer.global_step
        if self.spec.asynchronous and self._saves_before_the_last_step(trainer.global_step):
            strategy = cast(StepStrategy, trainer.strategy)
            index, count = strategy.replica()
            self.store.reserve([part.share(index, count) for part in strategy.parts()])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        step = batch.index + 1
        last, stop = step == self.run.num_steps, self.consensus.agreed_stop
        self._settle(trainer)
        if self.spec.is_due(step, self.run.steps_per_epoch) or any(self._minutes_up.ranks[:1]) or last or stop:
            self.save(trainer, step, wait=last or bool(stop) or not self.spec.asynchronous)
        if stop and not last:
            message = f"stopped after step {step}, which is saved; the same command goes on from there"
            raise StoppedBySignal(message, stop, agreed=True)
        if last:
            trainer.should_stop = True  # makes Lightning validate once more, wherever the last step falls

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        stop, step = self.consensus.agreed_stop, trainer.global_step
        if not stop:
            return
        self.ensure(trainer)
        message = f"stopped in the validation after step {step}, which is saved; resuming starts with that validation"
        raise StoppedBySignal(message, stop, agreed=True)

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
        started = time.perf_counter()
        self.store.background.wait()  # where the one before is still being written
        self.metrics.flush(trainer, share=True)
        self._settle(trainer)
        trainer.save_checkpoint(self._partial(step), storage_options={"in_background": not wait})
        if wait:
            self.store.background.wait()
        self._uncommitted = Manifest(
            step=step,
            num_ranks=trainer.world_size,
            parameters=self.store.saved_shapes,
            recipe=self.run.recipe,
            metrics=self.file.facts() if self.file is not None else FileFacts(0, ""),
            files={},
            time=utc_now(),
            seconds=SaveSeconds(stall=round(time.perf_counter() - started, 4)),
            optimizer=self.store.saved_optimizer,
        )
        self._taken_at, self._saved_step = time.monotonic(), step
        self._minutes_up.ranks = []  # answered; else it would be true until the next reading
        if wait:
            self.finish(trainer)
        self.metrics.restart_clock(trainer)

    def ensure(self, trainer: L.Trainer) -> None:
        """Waits until a checkpoint of the current step is committed, which is taken where there is none."""
        if self._saved_step == trainer.global_step:
            self.finish(trainer)
        else:
            self.save(trainer, trainer.global_step, wait=True)

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
        """Acts on what ranks last shared: the same on all of them."""
        if any(self._failed.ranks):
            self._give_up(trainer)
        while self._committed:
            self.announce([self._committed.pop(0)])
        manifest = self._uncommitted
        if manifest is not None and self._written.ranks and min(self._written.ranks) >= manifest.step:
            self._uncommitted = None
            if trainer.is_global_zero:
                self.store.background.start(partial(self._commit, manifest))

    def _commit(self, manifest: Manifest) -> None:
        checkpoint = self.folder.checkpoint(manifest.step)
        if self.file is not None:
            self.file.sync()
        seconds = replace(manifest.seconds, write=round(self.store.write_seconds, 4))
        complete = commit(checkpoint, manifest, seconds)
        retire(self.folder, self._retention(), validation_losses(self.folder.metrics))
        line = CheckpointLine(
            step=manifest.step,
            checkpoint_bytes=complete.num_bytes,
            checkpoint_stall_seconds=seconds.stall,
            checkpoint_write_seconds=seconds.write,
        )
        self._committed.append(line)

    def _give_up(self, trainer: L.Trainer) -> None:
        self.store.background.wait()
        trainer.strategy.barrier("galpaca: writing has ended")
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

    def _saves_before_the_last_step(self, step: int) -> bool:
        """Training waits for the last checkpoint, and for one at a stop."""
        later = range(step + 1, self.run.num_steps)
        by_steps = any(self.spec.is_due(one, self.run.steps_per_epoch) for one in later)
        return by_steps or (self.spec.every_minutes is not None and len(later) > 0)

    def _retention(self) -> Retention:
        return Retention(self.spec.keep_last, self.spec.keep_every, self.spec.keep_best)

    def _is_time_up(self) -> bool:
        minutes = self.spec.every_minutes
        return minutes is not None and time.monotonic() - self._taken_at >= 60 * minutes

    def _partial(self, step: int) -> Path:
        return partial_of(self.folder.checkpoint(step))


def _reason(error: Exception | None) -> tuple[str, bool]:
    """The reason in words, and whether the disk is full."""
    message = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return message, getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
