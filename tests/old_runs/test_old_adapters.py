"""A run of adapters of an earlier version: the present code resumes it, and it ends as it would have."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import Started, completed, read_jsonl
from old_runs.adapters import FIXTURES, HALF, NUM_STEPS, command, lay_out
from safetensors.torch import load_file, save_file

from galpaca.runs.folder import RunFolder

EXACT = ("step", "epoch", "lr", "examples", "tokens", "target_tokens", "micro_batches")
TOLERANCE = 1e-5  # between machines


@pytest.fixture
def half(tmp_path: Path) -> RunFolder:
    lay_out(tmp_path)
    shutil.copytree(FIXTURES / "half", tmp_path / "runs" / "half")
    return RunFolder(tmp_path / "runs", "half")


def test_it_ends_as_it_would_have(half: RunFolder, tmp_path: Path, server: str) -> None:
    """Beside a base that lies elsewhere now."""
    done = completed(Started(server, command("half"), tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"after step {HALF}" in done.stdout
    lines, expected = (read_jsonl(run / "metrics.jsonl") for run in (half.path, FIXTURES / "finished"))
    assert len(lines) == len(expected)
    for line, other in zip(lines, expected, strict=True):
        assert {key: line.get(key) for key in EXACT} == {key: other.get(key) for key in EXACT}
        figures = {key: other[key] for key in ("loss", "grad_norm", "val_loss") if key in other}
        assert {key: line[key] for key in figures} == pytest.approx(figures, rel=TOLERANCE)
    file = "adapter/adapter_model.safetensors"
    ours, theirs = (load_file(run / file) for run in (half.path, FIXTURES / "finished"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-6, msg=name)
    assert half.saved_steps() == [NUM_STEPS]
    assert half.model.is_dir()
    record = json.loads(half.record.read_text(encoding="utf-8"))
    assert record["weights"]["folder"] == str(tmp_path / "base")
    assert not record["starts"][-1].get("accepted_changes"), "nothing has changed"


def test_another_base_is_refused(half: RunFolder, tmp_path: Path, server: str) -> None:
    path = tmp_path / "base" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.decoder.layers.0.fc1.weight"].neg_()
    save_file(tensors, path, {"format": "pt"})
    done = completed(Started(server, command("half"), tmp_path))
    assert done.returncode == 2
    assert "base.fingerprint" in done.stderr
