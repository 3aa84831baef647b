"""The end of training where the validation loss no longer falls."""

from collections.abc import Callable

import lightning as L

from galpaca.training.checkpoints.callback import Checkpointer


class EarlyStopping(L.Callback):
    """Ends training after a validation, at a checkpoint.

    Lightning's own keeps what it has seen in its checkpoints. Here the lines of ``metrics.jsonl`` decide, which a
    checkpoint covers anyway.

    Args:
        is_over: whether the lines so far say so; asked on rank 0.
        checkpointer: saves the step after which training ends.
    """

    def __init__(self, is_over: Callable[[], bool], checkpointer: Checkpointer) -> None:
        self.is_over, self.checkpointer = is_over, checkpointer

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)  # a run may be killed between that validation and its end

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: L.Trainer) -> None:
        if trainer.should_stop or not trainer.strategy.broadcast(trainer.is_global_zero and self.is_over()):
            return
        self.checkpointer.ensure(trainer)
        trainer.should_stop = True
