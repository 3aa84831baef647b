"""An operation that cannot be computed in the same order every time ends a run with one clear error."""

from pathlib import Path

from conftest import Train

SAVED = ("checkpoint.every_steps=1", "checkpoint.asynchronous=false", "checkpoint.keep_last=9")


def test_it_is_named_with_the_key_that_allows_it(train: Train, tmp_path: Path) -> None:
    """Deep in torch's own code, as a stack trace, after the queue and the load."""
    done = train(*SAVED, hook="faults.crash:add_in_any_order", hook_arguments=(2,))
    assert done.returncode == 1
    assert "put_ cannot add in the same order every time" in done.stderr
    assert "compute.deterministic=false" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.glob("runs/test/checkpoints/step-*")) == [
        "step-00000001",
        "step-00000002",
    ]
