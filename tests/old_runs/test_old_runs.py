"""Runs of an earlier version, as it left them: the present code resumes the one, and reads the other.

``make.py`` says how they were made. What the interrupted one must become is the finished one, which is the same run.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, Started, completed, read_jsonl
from old_runs.small_run import HALF, HERE, NUM_STEPS, STRATEGIES, THEN, lay_out, now
from safetensors.torch import load_file

from galpaca.cli import main as galpaca
from galpaca.runs.folder import RunFolder

EXACT = ("step", "epoch", "lr", "examples", "tokens", "target_tokens", "micro_batches", "non_padding_fraction")
# Between machines, whose libraries add in other orders. On one machine ``bench.old_runs`` compares bits.
TOLERANCE = 1e-5

Resume = Callable[..., str]


@pytest.fixture
def resume(tmp_path: Path, server: str) -> Resume:
    """Copies a run folder, and types its command again with the present names; returns what it printed."""
    lay_out(tmp_path, tokenizer=HERE / "finished" / "base")

    def resumed(name: str, *overrides: str) -> str:
        shutil.copytree(HERE / name, tmp_path / "runs" / name)
        given = now([*THEN, *STRATEGIES["fsdp"], f"run.name={name}", *overrides])
        done = completed(Started(server, ["python", str(REPOSITORY / "train.py"), *given], tmp_path))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return resumed


def test_a_run_that_was_killed_half_way_ends_as_it_would_have(resume: Resume, tmp_path: Path) -> None:
    """Steps, order of the data, learning rates and counts exactly; losses and weights within rounding."""
    assert f"after step {HALF}" in resume("half")
    folder = RunFolder(tmp_path / "runs", "half")

    lines, expected = (read_jsonl(run / "metrics.jsonl") for run in (folder.path, HERE / "finished"))
    assert len(lines) == len(expected)
    for line, other in zip(lines, expected, strict=True):
        assert {key: line.get(key) for key in EXACT} == {key: other.get(key) for key in EXACT}
        figures = {key: other[key] for key in ("loss", "grad_norm", "val_loss") if key in other}
        assert {key: line[key] for key in figures} == pytest.approx(figures, rel=TOLERANCE)

    weights, others = (load_file(run / "model" / "model.safetensors") for run in (folder.path, HERE / "finished"))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=TOLERANCE, atol=1e-7, msg=name)

    assert folder.saved_steps() == [NUM_STEPS]
    shown = [(line["step"], line["instruction"]) for line in read_jsonl(folder.samples)]
    assert shown == [(line["step"], line["instruction"]) for line in read_jsonl(HERE / "finished" / "samples.jsonl")]
    record = json.loads(folder.record.read_text(encoding="utf-8"))
    started = json.loads((HERE / "half" / "run.json").read_text(encoding="utf-8"))
    assert record["id"] == started["id"]
    assert [start["step"] for start in record["starts"]] == [0, HALF]
    assert not record["starts"][-1].get("accepted_changes"), "nothing has changed"
    assert record["recipe"]["data.fingerprint"] != started["recipe"]["data.fingerprint"], "it is the examples' now"


def test_a_finished_run_is_found_complete_and_left_alone(resume: Resume, tmp_path: Path) -> None:
    assert "is complete" in resume("finished")
    for path in (HERE / "finished").rglob("*"):
        if path.is_file():
            assert (tmp_path / "runs" / "finished" / path.relative_to(HERE / "finished")).read_bytes() == (
                path.read_bytes()
            ), path


def test_changed_data_are_refused(resume: Resume, tmp_path: Path) -> None:
    records = json.loads((tmp_path / "records.json").read_text(encoding="utf-8"))
    records[3]["output"] += " So it is."
    (tmp_path / "records.json").write_text(json.dumps(records), encoding="utf-8")
    with pytest.raises(AssertionError, match="different data") as refused:
        resume("half")
    assert "data.fingerprint" in str(refused.value)
    assert "optim" not in str(refused.value), "the recipe is the same"


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return shutil.copytree(HERE / "finished", tmp_path / "finished")


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["runs", "finished"], "complete"),
        (["checkpoints", "finished"], "verified"),
        (["watch", "--once", "finished"], "complete"),
        (["report", "finished"], "report.html"),
    ],
    ids=["runs", "checkpoints", "watch", "report"],
)
def test_a_finished_run_is_read(
    command: list[str],
    shown: str,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(finished.parent)
    assert not galpaca(command)
    assert shown in capsys.readouterr().out


def test_a_checkpoint_of_a_finished_run_is_exported(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that were released then, to the bit; the card with all rows of the recipe."""
    monkeypatch.chdir(finished.parent)
    assert not galpaca(["export", "finished", "again"])
    weights, others = (load_file(Path(name, "model.safetensors")) for name in ("again", "finished/model"))
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    card, then = (Path(name, "README.md").read_text(encoding="utf-8") for name in ("again", "finished/model"))
    rows = [{line.split("|")[1] for line in text.splitlines() if line.startswith("|")} for text in (card, then)]
    # The optimizer's row says how its moments are kept, where they are not float32.
    assert rows[1] - {" Adam moments "} <= rows[0]
    optimizer = "| optimizer | AdamW, betas 0.9 and 0.999, weight decay 0.01 |\n"
    assert optimizer in then
    assert optimizer in card
