"""When checkpoints are taken, which stay, and that how they are written changes nothing."""

from pathlib import Path

import pytest
from conftest import Train
from safetensors import safe_open

from galpaca.runs.checkpoints import damage, read_manifest
from galpaca.runs.folder import RunFolder
from galpaca.runs.metrics import validation_losses

STEPS = ("trainer.max_steps=12", "trainer.max_epochs=100", "checkpoint.keep_last=20")


def saved(tmp_path: Path, name: str = "test") -> list[int]:
    folder = RunFolder(tmp_path / "runs", name)
    assert not any(damage(folder.checkpoint(step)) for step in folder.saved_steps())
    return folder.saved_steps()


@pytest.mark.slow
def test_by_minutes(train: Train, tmp_path: Path) -> None:
    """Ranks look at rank 0's clock when they read figures; a minute that is up counts once."""
    often = ("checkpoint.every_steps=null", "checkpoint.every_minutes=1e-6", "trainer.read_metrics_every_steps=4")
    done = train(*STEPS, *often, "strategy=ddp", "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    assert saved(tmp_path) == [1, 5, 9, 12]  # figures are read after the first step, then every fourth
    done = train(*STEPS, "checkpoint.every_steps=null", "checkpoint.every_minutes=60", "run.name=seldom")
    assert done.returncode == 0, done.stderr
    assert saved(tmp_path, "seldom") == [12]


def test_by_epochs_and_the_best_stays(train: Train, tmp_path: Path) -> None:
    """40 records less those held out are 5 steps an epoch; the rate is far too high, so the last is not the best."""
    done = train(
        *STEPS,
        *("checkpoint.every_steps=null", "checkpoint.every_epoch=true", "checkpoint.keep_last=1"),
        *("checkpoint.keep_best=true", "data.val_fraction=0.2", "optim.lr=0.5", "optim.warmup_ratio=0.5"),
        *("optim.schedule=constant", "optim.clip_norm=null"),
    )
    assert done.returncode == 0, done.stderr
    losses = validation_losses(tmp_path / "runs" / "test" / "metrics.jsonl")
    assert set(losses) == {5, 10, 12}
    best = min(losses, key=losses.__getitem__)
    assert best != 12
    assert saved(tmp_path) == [best, 12]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [("strategy=single",), ("strategy=fsdp", "trainer.devices=2")])
def test_written_beside_the_training_or_before_it(train: Train, tmp_path: Path, strategy: tuple[str, ...]) -> None:
    """The same bits in every tensor: what training does meanwhile does not show."""
    for name, value in (("beside", "true"), ("before", "false")):
        every = ("checkpoint.every_steps=1", f"checkpoint.asynchronous={value}")
        done = train(*STEPS, *strategy, *every, f"run.name={name}")
        assert done.returncode == 0, done.stderr
    for step in range(1, 13):
        one, other = (RunFolder(tmp_path / "runs", name).checkpoint(step) for name in ("beside", "before"))
        files = {name for name in read_manifest(one).files if name.endswith(".safetensors")}
        assert len(files) == len(strategy)
        for name in files:
            with safe_open(one / name, "pt") as a, safe_open(other / name, "pt") as b:
                assert list(a.keys()) == list(b.keys())
                assert all(a.get_tensor(key).equal(b.get_tensor(key)) for key in a.keys())  # noqa: SIM118
