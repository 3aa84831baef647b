"""After which steps a checkpoint is due, and work beside the training."""

import threading

from galpaca.training.checkpoints.background import Background
from galpaca.training.specs import CheckpointSpec


def test_steps_and_epochs() -> None:
    due = [step for step in range(1, 13) if CheckpointSpec(every_steps=5, every_epoch=True).is_due(step, 4)]
    assert due == [4, 5, 8, 10, 12]
    assert not any(CheckpointSpec(every_steps=None).is_due(step, 4) for step in range(1, 13))


def test_one_piece_of_work_after_the_other() -> None:
    done: list[int] = []
    gate = threading.Event()
    background = Background()

    def waited() -> None:
        gate.wait(5)
        done.append(1)

    background.start(waited)
    assert done == []
    gate.set()
    background.start(lambda: done.append(2))
    background.wait()
    assert done == [1, 2]


def test_after_an_error_nothing_more_is_started() -> None:
    """The folder of a failed checkpoint would be written to again."""
    done: list[int] = []
    background = Background()

    def fail() -> None:
        raise ZeroDivisionError

    background.start(fail)
    background.start(lambda: done.append(1))
    background.wait()
    assert isinstance(background.error, ZeroDivisionError)
    assert done == []
