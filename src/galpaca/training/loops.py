"""Lightning's loop over steps, without a wait for the GPU in each."""

from lightning.pytorch import Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop


class StepLoop(_TrainingEpochLoop):
    """With several ranks, Lightning broadcasts before every batch whether rank 0 got SIGTERM, and reads the answer
    back from the GPU. ``StepMetrics`` lets ranks agree on that along with its other figures.
    """

    def _broadcast_sigterm_tensor(self) -> None:
        pass


def use_step_loop(trainer: Trainer) -> None:
    """Puts the loop in place of Lightning's, before ``fit``."""
    trainer.fit_loop.epoch_loop = StepLoop(trainer)
