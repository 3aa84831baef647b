"""What a checkpoint says of its optimizer, compared with the run's; cheap to import."""

from collections.abc import Collection
from pathlib import Path

from galpaca.errors import InputError
from galpaca.runs.checkpoints import SavedOptimizer
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.optimizers.factory import OptimizerFactory


def saved_state(saved: SavedOptimizer | None) -> Collection[str]:
    """The kinds of state in a checkpoint's files once there have been updates; AdamW's where it does not say."""
    return AdamW().state if saved is None else saved.state


def check_saved_state(checkpoint: Path, saved: SavedOptimizer | None, factory: OptimizerFactory) -> None:
    """Checks that an optimizer can be restored from a checkpoint.

    Raises:
        InputError: it was saved with an optimizer that keeps other state.
    """
    kinds = saved_state(saved)
    if kinds and set(kinds) != set(factory.state):
        raise InputError(
            f"the checkpoint holds the optimizer's state {', '.join(kinds)}, "
            f"but {factory.target()} has {', '.join(factory.state) or 'none'}",
            where=checkpoint,
            fix="the optimizer that it was saved with, or a new run with run.name=ANOTHER",
        )
