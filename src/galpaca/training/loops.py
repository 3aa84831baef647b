"""What of Lightning's trainer is left out: a wait for the GPU in each step, its way with signals, and the memory of an
end that is none any more.
"""

from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from galpaca.training.datamodule import AlpacaDataModule


class StepLoop(_TrainingEpochLoop):
    """With several ranks, Lightning broadcasts before every batch whether rank 0 got SIGTERM, and reads the answer
    back from the GPU. ``Consensus`` lets ranks agree on that along with the figures of their steps.
    """

    def _broadcast_sigterm_tensor(self) -> None:
        """Does nothing."""

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """A checkpoint of a run's last step says that it was the last, which it is not in a plan of more steps."""
        super().on_load_checkpoint(state_dict)
        num_steps = cast(AlpacaDataModule, self.trainer.datamodule).num_steps
        self.batch_progress.is_last_batch = self.batch_progress.current.ready >= num_steps


class NoSignalHandlers(_SignalConnector):
    """``Shutdown`` has handlers of its own. Lightning's of SIGTERM speaks with other ranks inside it, and hangs."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


def replace_loops(trainer: Trainer) -> None:
    """Puts these in place of Lightning's, before ``fit``."""
    trainer.fit_loop.epoch_loop = StepLoop(trainer)
    trainer._signal_connector = NoSignalHandlers(trainer)
