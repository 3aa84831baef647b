"""A run folder that is not what it was: whoever works with it is told, and no card states what nobody knows."""

import fcntl
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import Train, command, read_jsonl
from forked import Forked

STEPS = ("trainer.max_steps=4", "checkpoint.every_steps=2")


@pytest.fixture
def half(train: Train, tmp_path: Path) -> Path:
    """A run of four steps whose last checkpoint and model are gone."""
    assert train(*STEPS).returncode == 0
    folder = tmp_path / "runs/test"
    for name in ("model", "checkpoints/step-00000004"):
        shutil.rmtree(folder / name)
    return folder


def card(folder: Path) -> str:
    return (folder / "model/README.md").read_text(encoding="utf-8")


def test_a_complete_run_names_the_command_for_another_release(train: Train, tmp_path: Path) -> None:
    """It was left as it is, silently, although these keys may change whenever a run is resumed."""
    assert train(*STEPS).returncode == 0
    done = train(*STEPS, "release.dtype=float16", "release.max_new_tokens=7")
    assert done.returncode == 0
    folder = tmp_path / "runs/test"
    line = f"galpaca export {folder} {folder}-float16-7 --dtype float16 --max-new-tokens 7"
    assert line in done.stdout
    assert "left as it is" not in train(*STEPS).stdout


@pytest.mark.parametrize("machine", [(), ("strategy=fsdp", "trainer.devices=2")])
def test_a_complete_run_trains_the_steps_that_it_is_given_more(
    train: Train, tmp_path: Path, machine: tuple[str, ...]
) -> None:
    """Its last checkpoint said that it was the last: the run was called complete, with no step taken."""
    assert train(*STEPS, *machine).returncode == 0
    more = train(*STEPS, *machine, "trainer.max_steps=7", "run.accept_changes=true")
    assert more.returncode == 0, more.stderr
    folder = tmp_path / "runs/test"
    assert [line["step"] for line in read_jsonl(folder / "metrics.jsonl")] == list(range(1, 8))
    assert "| steps | 7 of 7 " in card(folder)


def test_a_model_of_fewer_steps_does_not_make_a_run_complete(train: Train, tmp_path: Path) -> None:
    """It was killed after its further steps and before their release: the model of before is still there."""
    assert train(*STEPS).returncode == 0
    folder = tmp_path / "runs/test"
    earlier = shutil.copytree(folder / "model", tmp_path / "earlier")
    more = (*STEPS, "trainer.max_steps=7", "run.accept_changes=true")
    assert "unreleased" not in json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert train(*more).returncode == 0
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps({**record, "unreleased": True}), encoding="utf-8")
    shutil.rmtree(folder / "model")
    shutil.copytree(earlier, folder / "model")
    again = train(*STEPS, "trainer.max_steps=7")
    assert again.returncode == 0, again.stderr
    assert "is complete" not in again.stdout
    assert "| steps | 7 of 7 " in card(folder)
    assert "is complete" in train(*STEPS, "trainer.max_steps=7").stdout


def test_fewer_steps_than_are_taken_are_refused(train: Train, tmp_path: Path) -> None:
    assert train(*STEPS).returncode == 0
    fewer = train(*STEPS, "trainer.max_steps=3", "run.accept_changes=true")
    assert fewer.returncode == 2
    assert "the newest checkpoint is after step 4, but the plan has 3 steps" in fewer.stderr
    assert f"galpaca export {tmp_path / 'runs/test'}@2" in fewer.stderr


def test_checkpoints_without_a_record_are_a_warning(train: Train, half: Path) -> None:
    (half / "run.json").unlink()
    done = train(*STEPS)
    assert done.returncode == 0, done.stderr
    assert "checkpoints without a run.json" in done.stdout
    assert "| steps 1 to 2 | not recorded |" in card(half)
    assert "lost record" in json.loads((half / "run.json").read_text(encoding="utf-8"))["starts"][0]["setup"]


def test_a_card_knows_which_step_its_first_loss_is_of(train: Train, half: Path) -> None:
    """It called the loss of step 16 that of the first step, and five steps all of twenty."""
    (half / "metrics.jsonl").unlink()
    assert train(*STEPS).returncode == 2
    done = train(*STEPS, "run.accept_changes=true")
    assert done.returncode == 0, done.stderr
    assert "lacks 2 of 2 steps" in done.stdout
    assert " at step 3, " in card(half)
    assert "| steps | 2, and 2 whose figures are lost" in card(half)
    assert "time not recorded" in card(half)


def test_the_lock_of_a_killed_run_is_free_at_once(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path, server: str
) -> None:
    """Its data workers notice its death after five seconds, and held the lock until then."""
    steps = ("trainer.max_steps=5000", "trainer.max_epochs=5000", "trainer.data_workers=1")
    line = command(tmp_path, tokenizer_folder, records_file, *steps)
    with (tmp_path / "output").open("w", encoding="utf-8") as output:
        run = Forked(server, line[1:], cwd=tmp_path, env=os.environ, stdout=output.fileno(), stderr=output.fileno())
        metrics, lock = (tmp_path / "runs/test" / name for name in ("metrics.jsonl", "run.lock"))
        deadline = time.monotonic() + 120
        while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
        run.wait(30)
    with lock.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
