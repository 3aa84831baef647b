"""Damaged checkpoints, foreign ones, and disks that are full: one clear word, and nothing that was good is lost."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Started, Train, command, completed, read_jsonl
from faults.kills import EVERY, OVERRIDES, STEPS, STRATEGIES, assert_equal_runs

KEPT = (*OVERRIDES, "checkpoint.keep_last=5")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, server: str, tokenizer_folder: Path) -> Path:
    """A folder with ``records.json`` and a finished run that kept all its checkpoints."""
    from conftest import DEMO

    folder = tmp_path_factory.mktemp("straight")
    records = json.loads((DEMO / "records.json").read_text(encoding="utf-8"))[::12][:40]
    (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
    done = completed(Started(server, command(folder, tokenizer_folder, folder / "records.json", *KEPT), folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def interrupted(straight: Path, tmp_path: Path) -> Path:
    """The run as it was after its second checkpoint; ``train`` finds it as its own."""
    run = tmp_path / "runs" / "test"
    shutil.copytree(straight / "runs", tmp_path / "runs")
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / f"step-{STEPS:08d}")
    return run


def steps_of(run: Path) -> list[object]:
    return [line["step"] for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


FILES = ("rank-00000.safetensors", "trainer.json", "manifest.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink], ids=["flipped", "truncated", "missing"])
def test_the_checkpoint_before_a_damaged_one_is_taken(
    train: Train, straight: Path, interrupted: Path, file: str, damage: Callable[[Path], None]
) -> None:
    """It is reported, found before the first step, and set aside; the run ends as if nothing had been."""
    newest = interrupted / "checkpoints" / "step-00000004"
    damage(newest / file)
    done = train(*KEPT)
    assert done.returncode == 0, done.stderr
    assert "damaged-step-00000004: " in done.stdout
    assert "resuming from the previous checkpoint, step 2" in done.stdout
    record = json.loads((interrupted / "run.json").read_text(encoding="utf-8"))
    assert record["starts"][-1]["step"] == 2
    assert (interrupted / "checkpoints" / "damaged-step-00000004").is_dir()
    assert_equal_runs(straight / "runs" / "test", interrupted)


def test_nothing_begins_anew_where_all_checkpoints_are_damaged(train: Train, interrupted: Path) -> None:
    for step in (2, 4):
        flip(interrupted / "checkpoints" / f"step-{step:08d}" / "rank-00000.safetensors")
    before = (interrupted / "metrics.jsonl").read_bytes()
    done = train(*KEPT)
    assert done.returncode == 2
    for step in (2, 4):
        assert f"step-{step:08d}: rank-00000.safetensors is damaged" in done.stderr
    assert "rm -r" in done.stderr
    assert "Traceback" not in done.stderr
    assert (interrupted / "metrics.jsonl").read_bytes() == before
    assert sorted(path.name for path in (interrupted / "checkpoints").glob("*step-*")) == [
        "step-00000002",
        "step-00000004",
    ]


@pytest.mark.parametrize("change", [('"loss": 7', '"loss": 6'), ('"loss": 7', "#########")])
def test_a_changed_figure_is_found(train: Train, interrupted: Path, change: tuple[str, str]) -> None:
    """A wrong number would go into a paper."""
    metrics = interrupted / "metrics.jsonl"
    text = metrics.read_text(encoding="utf-8")
    metrics.write_text(text.replace(*change, 1), encoding="utf-8")
    done = train(*KEPT)
    assert done.returncode == 2
    assert "metrics.jsonl" in done.stderr
    assert "run.accept_changes=true" in done.stderr
    again = train(*KEPT, "run.accept_changes=true")
    assert again.returncode == 0, again.stderr
    is_readable = "#" not in change[1]
    assert steps_of(interrupted) == list(range(1 if is_readable else 2, STEPS + 1))


def test_the_checkpoint_of_another_run_is_refused(train: Train, interrupted: Path, straight: Path) -> None:
    """Put in this run's folder by mistake, it would be trained on with other data and another schedule."""
    checkpoint = interrupted / "checkpoints" / "step-00000004"
    done = train(*KEPT, "run.name=other", "seed=8", "optim.lr=1e-4")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(checkpoint)
    shutil.copytree(interrupted.parent / "other" / "checkpoints" / "step-00000004", checkpoint)
    refused = train(*KEPT)
    assert refused.returncode == 2
    assert "optim.lr: 0.0001 -> 2e-05" in refused.stderr
    assert "seed: 8 -> 42" in refused.stderr


def test_the_checkpoint_of_another_model_is_refused(train: Train, interrupted: Path) -> None:
    """Even where changes are accepted."""
    done = train(*KEPT, "model.ffn_size=96", "run.accept_changes=true")
    assert done.returncode == 2
    assert "mismatched weight: model.decoder.layers.0.fc1.weight is 64 x 32, expected 96 x 32" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_change_that_is_accepted_is_kept_in_the_record(train: Train, interrupted: Path) -> None:
    refused = train(*KEPT, "optim.lr=1e-4")
    assert refused.returncode == 2
    assert "optim.lr: 2e-05 -> 0.0001" in refused.stderr
    done = train(*KEPT, "optim.lr=1e-4", "run.accept_changes=true")
    assert done.returncode == 0, done.stderr
    record = json.loads((interrupted / "run.json").read_text(encoding="utf-8"))
    assert record["starts"][-1]["accepted_changes"] == ["optim.lr: 2e-05 -> 0.0001"]
    assert record["starts"][-1]["step"] == 4
    assert record["recipe"]["optim.lr"] == 1e-4


def test_leftovers_of_a_killed_run_count_for_nothing(train: Train, interrupted: Path, straight: Path) -> None:
    partial = interrupted / "checkpoints" / ".step-00000006.partial"
    partial.mkdir()
    (partial / "rank-00000.safetensors").write_bytes(b"half")
    done = train(*KEPT)
    assert done.returncode == 0, done.stderr
    assert not partial.exists()
    assert_equal_runs(straight / "runs" / "test", interrupted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "rank", "write"),
    [("single", 0, 9), ("single", 0, 19), ("fsdp", 0, 20), ("fsdp", 1, 9)],
)
def test_a_full_disk_stops_the_run_and_keeps_the_last_good_checkpoint(
    train: Train,
    tmp_path: Path,
    server: str,
    tokenizer_folder: Path,
    records_file: Path,
    strategy: str,
    rank: int,
    write: int,
) -> None:
    """At a write of the first or the second checkpoint, on this rank or that."""
    run = tmp_path / "runs" / "test"
    overrides = (*OVERRIDES, *STRATEGIES[strategy])
    line = command(tmp_path, tokenizer_folder, records_file, *overrides)
    hook: dict[str, Any] = {"hook": "faults.crash:fail_at", "hook_arguments": (str(run / "checkpoints"), write, rank)}
    done = completed(Started(server, line, tmp_path, **hook), 200)
    assert done.returncode == 1, done.stderr
    assert "cannot write a checkpoint: No space left on device" in done.stderr
    assert "free disk space" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((run / "checkpoints").glob(".*"))
    saved = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    assert saved == ([] if "no earlier checkpoint" in done.stderr else [f"step-{EVERY:08d}"])
    again = train(*overrides)
    assert again.returncode == 0, again.stderr
    assert steps_of(run) == list(range(1, STEPS + 1))


TMPFS = """
mount -t tmpfs -o size={size}k tmpfs {folder} || exit 77
cd {folder}
"$@" &
run=$!
if [ {fill} = 1 ]; then
    until [ -s runs/test/metrics.jsonl ]; do kill -0 $run 2> /dev/null || break; sleep 0.05; done
    dd if=/dev/zero of=filler bs=64k 2> /dev/null
fi
wait $run
code=$?
ls -A runs/test/checkpoints > {listing} 2> /dev/null
exit $code
"""


def on_small_disk(
    tmp_path: Path, tokenizer: Path, records: Path, *overrides: str, size: int, fill: bool
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs ``train.py`` on a disk of its own, and lists its checkpoints."""
    folder, listing = tmp_path / "disk", tmp_path / "listing"
    folder.mkdir()
    script = TMPFS.format(size=size, folder=folder, fill=int(fill), listing=listing)
    line = command(folder, tokenizer, records, *overrides)
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    done = subprocess.run(
        [*namespace, "bash", "-c", script, "bash", *line], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no disk of its own can be mounted here: {done.stderr.strip()}")
    return done, listing.read_text().split() if listing.exists() else []


@pytest.mark.slow
def test_a_disk_too_small_is_refused_before_the_first_step(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path
) -> None:
    """1.6 MiB a checkpoint, one kept and one being written, and 0.6 MiB for the model, on a disk of 3 MiB."""
    done, _ = on_small_disk(tmp_path, tokenizer_folder, records_file, *OVERRIDES, size=3_000, fill=False)
    assert done.returncode == 2, done.stderr
    assert "free, but the run needs" in done.stderr
    assert "checkpoint.keep_last" in done.stderr


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_the_last_good_checkpoint(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path
) -> None:
    """A real file system, filled by another program while the run is under way."""
    overrides = (*OVERRIDES, "trainer.max_steps=2000", "checkpoint.every_steps=10", "trainer.max_epochs=1000")
    done, left = on_small_disk(tmp_path, tokenizer_folder, records_file, *overrides, size=12_000, fill=True)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [name for name in left if name.startswith(".")]
    assert len([name for name in left if name.startswith("step-")]) <= 1
