"""The validation that a stop or a kill has left out."""

import lightning as L


class MissedValidation(L.Callback):
    """Validates before the first step.

    A checkpoint is taken before the validation of its step. Lightning takes that validation as done when a run
    continues, and the step would have no validation loss for good.

    Args:
        missed: whether it has none, as rank 0 sees it.
    """

    def __init__(self, missed: bool) -> None:
        self.missed = missed

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.strategy.broadcast(self.missed):
            return
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False  # from its first example on
        trainer.validating = True
        loop.run()
        trainer.training = True
