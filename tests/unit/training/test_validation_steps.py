"""How often a run validates: as often as it judges checkpoints."""

import pytest

from galpaca.training.specs import CheckpointSpec, TrainerSpec, steps_between_validations


@pytest.mark.parametrize(
    ("trainer", "checkpoint", "steps"),
    [
        (TrainerSpec(), CheckpointSpec(every_steps=10), 75),
        (TrainerSpec(), CheckpointSpec(every_steps=10, keep_best=True), 10),
        (TrainerSpec(), CheckpointSpec(every_steps=100, keep_best=True), 75),
        (TrainerSpec(), CheckpointSpec(every_steps=10, keep_best=True, every_epoch=True), 75),
        (TrainerSpec(), CheckpointSpec(every_steps=None, keep_best=True), 75),
        (TrainerSpec(val_every_steps=200), CheckpointSpec(every_steps=10, keep_best=True), 200),
    ],
)
def test_steps_between_validations(trainer: TrainerSpec, checkpoint: CheckpointSpec, steps: int) -> None:
    assert steps_between_validations(trainer, checkpoint, steps_per_epoch=75) == steps
