"""``galpaca export`` refuses at the door: exit code 2, one message with a way out, and nothing half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from galpaca.cli import main
from galpaca.files.checksums import file_facts
from galpaca.runs.checkpoints import read_manifest

Refused = Callable[..., str]


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run folder that may be damaged."""
    shutil.copytree(run, tmp_path / "runs" / "test")
    return tmp_path / "runs" / "test"


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Exports to ``<tmp_path>/made/model`` by default, which must be refused; returns the message."""
    monkeypatch.chdir(tmp_path)

    def export(source: Path, *arguments: object, out: Path | None = None) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main(["export", str(source), str(out or tmp_path / "made" / "model"), *map(str, arguments)]) == 2
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert "Traceback" not in message
        assert "fix: " in message
        return message

    return export


def newest(run: Path) -> Path:
    return run / "checkpoints" / "step-00000004"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def put(checkpoint: Path, name: str, value: float) -> None:
    """Fills a parameter on disk, with a manifest that says so."""
    manifest, files = read_manifest(checkpoint), {}
    for path in checkpoint.glob("*.safetensors"):
        tensors = load_file(path)
        for key in tensors:
            if key.startswith(f"weight/{name}/"):
                tensors[key].fill_(value)
        save_file(tensors, path)
        files[path.name] = file_facts(path)
    changed = replace(manifest, files={**manifest.files, **files})
    (checkpoint / "manifest.json").write_text(changed.to_json(), encoding="utf-8")


def test_a_folder_that_is_there(copy: Path, refused: Refused) -> None:
    assert "already exists" in refused(copy, out=copy / "model")


def test_what_is_no_model_is_never_overwritten(copy: Path, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work", encoding="utf-8")
    assert "exists but is not a model, so it is not overwritten" in refused(
        copy, "--overwrite", out=tmp_path / "thesis"
    )


@pytest.mark.parametrize("place", ["base", "checkpoints", "checkpoints/step-00000004", "checkpoints/model"])
def test_what_the_run_needs_is_never_overwritten(copy: Path, refused: Refused, place: str) -> None:
    assert "the run itself needs this folder" in refused(copy, "--overwrite", out=copy / place)


def test_neither_run_nor_checkpoint(copy: Path, tmp_path: Path, refused: Refused) -> None:
    assert "not a run folder" in refused(copy / "model")
    assert "no such folder" in refused(tmp_path / "nowhere")
    assert "step-00000003: the checkpoint is" in refused(copy / "checkpoints" / "step-00000003")


def test_a_damaged_checkpoint_names_the_one_before(copy: Path, refused: Refused) -> None:
    flip_a_bit(newest(copy) / "rank-00001.safetensors")
    message = refused(newest(copy))
    assert "rank-00001.safetensors is damaged" in message
    assert f"use the previous checkpoint, which is intact: {copy / 'checkpoints' / 'step-00000002'}" in message


def test_all_damaged_checkpoints_are_reported(copy: Path, refused: Refused) -> None:
    for step in ("step-00000002", "step-00000004"):
        flip_a_bit(copy / "checkpoints" / step / "rank-00000.safetensors")
    for message in (refused(copy), refused(newest(copy))):
        assert "is damaged" in message
    assert "2 problems" in refused(copy)
    assert "no earlier checkpoint is intact" in message


def test_no_checkpoint(copy: Path, refused: Refused) -> None:
    shutil.rmtree(copy / "checkpoints")
    assert "the run has no checkpoint" in refused(copy)


def test_a_run_of_before(copy: Path, refused: Refused) -> None:
    record = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    del record["release"]
    (copy / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert "did not save what a release needs" in refused(copy)


def test_the_base_must_be_the_runs(copy: Path, refused: Refused) -> None:
    """A tokenizer or a configuration of another model would make a folder that loads and talks nonsense."""
    config = json.loads((copy / "base" / "config.json").read_text(encoding="utf-8"))
    (copy / "base" / "config.json").write_text(json.dumps({**config, "ffn_dim": 48}), encoding="utf-8")
    assert "mismatched weight: model.decoder.layers.0.fc1.bias is 64, expected 48" in refused(copy)
    (copy / "base" / "config.json").write_text(json.dumps(config)[:-9], encoding="utf-8")
    assert "a file is missing or damaged" in refused(copy)
    (copy / "base" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = json.loads((copy / "base" / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"] = None
    (copy / "base" / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert "not the one that the run was trained with" in refused(copy)
    shutil.rmtree(copy / "base")
    assert "configuration and tokenizer are missing" in refused(copy)


def test_all_wrong_options_at_once(copy: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galpaca.release.push.get_token", lambda: None)
    message = refused(copy, "--shard-size=0", "--max-new-tokens=0", "--push=a/b/c", out=copy / "model")
    for shown in (
        "6 problems",
        "--shard-size: must be > 0, got 0.0",
        "--max-new-tokens: must be at least 1, got 0",
        "--push: must be OWNER/NAME, got 'a/b/c'",
        "--push: not logged in",
        "--push: HF_HUB_OFFLINE is set",
        "already exists",
    ):
        assert shown in message
    assert "--public requires --push" in refused(copy, "--public")


def test_weights_that_float16_cannot_hold(copy: Path, tmp_path: Path, refused: Refused) -> None:
    put(newest(copy), "model.decoder.layers.1.fc2.bias", 1e6)
    message = refused(copy, "--dtype=float16")
    assert "model.decoder.layers.1.fc2.bias has a value that float16 cannot represent" in message
    assert "bfloat16 or float32" in message
    assert main(["export", str(copy), str(tmp_path / "model"), "--dtype=bfloat16"]) == 0


def test_logits_that_float16_cannot_hold(copy: Path, refused: Refused) -> None:
    """Every weight is a number in float16, and what the layers make of them is not: silently NaN before."""
    put(newest(copy), "model.decoder.final_layer_norm.weight", 6e4)
    put(newest(copy), "model.decoder.embed_tokens.weight", 6e4)
    assert "in float16 the model's logits are not finite" in refused(copy, "--dtype=float16")


def test_a_weight_that_is_no_number(copy: Path, refused: Refused) -> None:
    put(newest(copy), "model.decoder.layers.0.fc1.bias", torch.nan)
    assert "an earlier checkpoint" in refused(copy)


def test_a_signal_leaves_nothing_behind(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the midst of an export, when the weights have been written."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("galpaca.release.export.check_tensors", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["export", str(copy), str(tmp_path / "made" / "model")]) == 143
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert signal.getsignal(signal.SIGTERM) is before


_ON_SMALL_DISKS = """
import sys
from pathlib import Path
from galpaca.app import export
from galpaca.cli import main

run, disk = map(Path, sys.argv[1:])
for place, checked in (("read-only", True), ("tiny", True), ("tiny", False), ("small", True)):
    room = export._check_disk_space
    if not checked:
        export._check_disk_space = lambda *_: None
    assert main(["export", str(run), str(disk / place / "made" / "model")]) == 2
    export._check_disk_space = room
    assert list((disk / place).iterdir()) == [], place
"""


@pytest.mark.slow
def test_a_disk_that_is_full_or_read_only(run: Path, tmp_path: Path) -> None:
    """On file systems of their own: the weights do not fit, nor do they without the first check, nor the tokenizer."""
    num_bytes = (run / "model" / "model.safetensors").stat().st_size
    mounts = {"read-only": "ro", "tiny": f"size={num_bytes // 2}", "small": f"size={num_bytes + 60_000}"}
    (tmp_path / "script.py").write_text(_ON_SMALL_DISKS, encoding="utf-8")
    for name in mounts:
        (tmp_path / name).mkdir()
    commands = [f"mount -t tmpfs -o {options} none {tmp_path / name}" for name, options in mounts.items()]
    if subprocess.run(["unshare", "-rm", "sh", "-c", " && ".join(commands)], capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    commands.append(f"{sys.executable} {tmp_path / 'script.py'} {run} {tmp_path}")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", " && ".join(commands)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    shown = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.rpartition(": ")[2].partition(" (")[0] for line in shown if "cannot write" in line] == [
        "Read-only file system",
        "No space left on device",
        "No space left on device",
    ]
    assert "disk space free, but the weights take" in shown[1]
