"""What of Lightning's trainer is left out: a wait for the GPU in each step, and its way with signals."""

from lightning.pytorch import Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector


class StepLoop(_TrainingEpochLoop):
    """With several ranks, Lightning broadcasts before every batch whether rank 0 got SIGTERM, and reads the answer
    back from the GPU. ``Consensus`` lets ranks agree on that along with the figures of their steps.
    """

    def _broadcast_sigterm_tensor(self) -> None:
        """Does nothing."""


class NoSignalHandlers(_SignalConnector):
    """``Shutdown`` has handlers of its own. Lightning's of SIGTERM speaks with other ranks inside it, and hangs."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


def replace_loops(trainer: Trainer) -> None:
    """Puts these in place of Lightning's, before ``fit``."""
    trainer.fit_loop.epoch_loop = StepLoop(trainer)
    trainer._signal_connector = NoSignalHandlers(trainer)
