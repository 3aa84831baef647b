"""``release.checkpoint=best``: the saved checkpoint with the lowest validation loss is the model, and says so."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Train, read_jsonl
from safetensors.torch import load_file

# A learning rate at which the validation loss soon rises again.
OVERFITS = (
    "data.val_fraction=0.3",
    "trainer.max_steps=8",
    "trainer.max_epochs=20",
    "trainer.val_every_steps=2",
    "checkpoint.every_steps=2",
    "checkpoint.keep_last=1",
    "checkpoint.keep_best=true",
    "optim.lr=0.1",
    "optim.schedule=constant",
    "release.checkpoint=best",
)


def val_losses(folder: Path) -> dict[int, float]:
    return {line["step"]: line["val_loss"] for line in read_jsonl(folder / "metrics.jsonl") if "val_loss" in line}


def galpaca(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "galpaca", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True)


def weights(folder: Path) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in load_file(folder / "model.safetensors").items()}


@pytest.mark.slow
def test_the_best_is_released_whatever_came_after_it(train: Train, tmp_path: Path) -> None:
    done = train(*OVERFITS)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/test"
    losses = val_losses(folder)
    best = min(losses, key=lambda step: losses[step])
    assert 0 < best < 8, losses
    assert f"releasing step {best}, which has the lowest validation loss" in done.stdout
    card = (folder / "model/README.md").read_text(encoding="utf-8")
    assert f"| steps | {best} of 8 " in card
    assert f"| validation loss | {losses[best]:.4f} |" in card
    for name, source in (("step", f"{folder}@{best}"), ("best", f"{folder}@best"), ("run", folder)):
        exported = galpaca("export", source, tmp_path / name)
        assert exported.returncode == 0, exported.stderr
        assert weights(tmp_path / name) == weights(folder / "model"), name
    assert galpaca("export", f"{folder}@last", tmp_path / "last").returncode == 0
    assert weights(tmp_path / "last") != weights(folder / "model")
    again = train(*OVERFITS)
    assert "is complete" in again.stdout
    assert "left as it is" not in again.stdout
    other = train(*OVERFITS[:-1], "release.checkpoint=last")
    assert f"galpaca export {folder}@last {folder}-last" in other.stdout


@pytest.mark.slow
def test_checkpoints_that_are_judged_are_validated(train: Train, tmp_path: Path) -> None:
    """Only ends of epochs were, without ``trainer.val_every_steps``: no checkpoint between them could be the best."""
    done = train(*(word for word in OVERFITS if not word.startswith("trainer.val_every_steps")))
    assert done.returncode == 0, done.stderr
    assert sorted(val_losses(tmp_path / "runs/test")) == [2, 4, 6, 8]


def test_what_cannot_be_chosen_by_is_refused(train: Train) -> None:
    done = train("release.checkpoint=best")
    assert done.returncode == 2
    assert "no record is held out to validate on" in done.stderr
    assert "checkpoint.keep_best=true" in done.stderr


@pytest.mark.slow
def test_own_records_are_asked_and_the_best_is_kept(train: Train, tmp_path: Path, records_file: Path) -> None:
    """The experiment for them, with a model of random weights in the place of GALACTICA's."""
    rows = json.loads(records_file.read_text(encoding="utf-8")) * 3
    for number, row in enumerate(rows):
        row["instruction"] = f"{row['instruction']} ({number})"
    records_file.write_text(json.dumps(rows), encoding="utf-8")
    steps = ("trainer.max_steps=20", "optim.lr=0.01", "data.val_fraction=0.2", "data.test_fraction=0.2")
    done = train("+experiment=own_records", "tuning=full", "precision=32-true", *steps)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/test"
    assert sorted(val_losses(folder)) == [10, 20]
    held_out = [row["instruction"] for row in rows]
    samples = read_jsonl(folder / "samples.jsonl")
    assert 1 <= len({line["instruction"] for line in samples}) <= 8
    assert {line["instruction"] for line in samples} <= set(held_out)


# The loss of OVERFITS is lowest at one of its first validations.
PATIENT = (*OVERFITS, "trainer.max_steps=40", "trainer.early_stopping_patience=3")


@pytest.mark.slow
def test_training_ends_where_the_validation_loss_no_longer_falls(train: Train, tmp_path: Path) -> None:
    """On two ranks, in the same bits as a run that trains all steps, and again after a kill at any point."""
    ranks = ("strategy=ddp", "trainer.devices=2", "checkpoint.keep_last=30")
    done = train(*PATIENT, *ranks)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/test"
    losses = val_losses(folder)
    best = min(losses, key=lambda step: losses[step])
    last = best + 3 * 2
    assert max(losses) == last < 40, losses
    for text in (done.stdout, (folder / "model/README.md").read_text(encoding="utf-8")):
        assert f"after step {last}: the validation loss no longer fell" in text
    assert {line["step"] for line in read_jsonl(folder / "metrics.jsonl")} == set(range(1, last + 1))
    state = galpaca("runs", folder.parent)
    assert "complete" in state.stdout, state.stdout
    assert "is complete" in train(*PATIENT, *ranks).stdout

    # What a kill between the last validation and the release leaves behind.
    answer = weights(folder / "model")
    shutil.rmtree(folder / "model")
    again = train(*PATIENT, *ranks)
    assert again.returncode == 0, again.stderr
    assert weights(folder / "model") == answer
    assert max(val_losses(folder)) == last

    # And whoever wants all steps after all has them.
    on = train(*PATIENT, *ranks, "trainer.early_stopping_patience=null")
    assert on.returncode == 0, on.stderr
    assert max(val_losses(folder)) == 40
    whole = train(*PATIENT, *ranks, "trainer.early_stopping_patience=null", "run.name=whole")
    assert whole.returncode == 0, whole.stderr
    assert val_losses(folder) == val_losses(folder.with_name("whole"))
    assert weights(folder / "model") == weights(folder.with_name("whole") / "model")
    assert "no longer fell" not in (folder / "model/README.md").read_text(encoding="utf-8")


def test_patience_needs_held_out_records(train: Train) -> None:
    done = train("trainer.early_stopping_patience=2")
    assert done.returncode == 2
    assert "trainer.early_stopping_patience=2 has nothing to choose by" in done.stderr
    assert "data.val_fraction=0.1" in done.stderr
