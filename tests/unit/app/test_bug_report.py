"""A bug report has what helps, and nothing that is nobody's business."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from galpaca.app.bug_report import bug_report, describe, without_private
from galpaca.errors import InputError
from galpaca.runs.folder import RunFolder, find_run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot write /scratch/ada/runs/x.json: full", "cannot write (path): full"),
        ("open ~/secret/data.csv", "open (path)"),
        ('File "/home/ada/.venv/lib/python3.11/site-packages/torch/nn/x.py", line 3', 'File "torch/nn/x.py", line 3'),
        ('File "/usr/lib/python3.11/threading.py", line 3', 'File "python3.11/threading.py", line 3'),
        ("key 0123456789abcdef0123456789abcdef01234567 or hf_abcdefghijklmnop", "key (key) or (key)"),
        ("https://host.example.org/a?token=b, ada@example.org", "(address) (address)"),
        ("/home/ada/src/oncology/patients.json", "(path)"),
        ('File "/home/ada/work/src/galpaca/app/x.py", line 3', 'File "galpaca/app/x.py", line 3'),
        ("host:/scratch/ada/a.json -I/home/ada/inc ~ada/data/x", "(path) (path) (path)"),
        ("open '/data/My Project/x' failed", "open '(path)' failed"),
        ("runs/oncology-trial/metrics.jsonl lacks 2 of 2 steps", "(path) lacks 2 of 2 steps"),
        ("on node17, 3/4 done, and/or", "on (name), 3/4 done, and/or"),
        ("1e-5, 12.5 tokens/s", "1e-5, 12.5 tokens/s"),
    ],
)
def test_what_is_private_is_taken_out_of_any_text(text: str, expected: str) -> None:
    assert without_private(text, ["node17"]) == expected


@pytest.fixture
def failed(run: Path, tmp_path: Path) -> RunFolder:
    """A run that was on a machine with a name, hung, and failed over a file of a person."""
    folder = tmp_path / "ada-private" / "failed"
    shutil.copytree(run, folder)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    why = f"cannot read {folder}/base/prompts.json; WANDB_API_KEY={'0123456789' * 4}"
    record["starts"][-1] |= {"host": "node17", "ended": {"time": "2026-01-01T00:00:00Z", "how": "failed", "why": why}}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    stack = folder / "stacks" / "1" / "rank-00000.txt"
    stack.parent.mkdir(parents=True)
    stack.write_text(f'File "{tmp_path}/.venv/lib/python3.11/site-packages/torch/cuda/streams.py", line 9 in wait\n')
    return find_run(folder)


def test_a_report_helps(failed: RunFolder) -> None:
    text = describe(failed)
    for part in (
        "ended: 'failed: cannot read (path); WANDB_API_KEY=(key)",
        "torch: ",
        "lightning: ",
        "batch:",
        "lr: ",
        "precision:\n  name: 32-true",
        '"grad_norm"',
        "target_tokens",
        'File "torch/cuda/streams.py", line 9 in wait',
        "step ",
    ):
        assert part in text, part


def test_what_the_configuration_hides_is_hidden_everywhere(failed: RunFolder) -> None:
    path = failed.path / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["data"]["hub_id"], config["model"]["path"] = "clinic/records", "facebook/galactica-6.7b"
    config["run"]["name"] = "loss"
    config["callbacks"] = {"own": {"_target_": "lab_code.Secret", "every": 3}}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    record = json.loads((failed.path / "run.json").read_text(encoding="utf-8"))
    record["starts"][-1]["ended"]["why"] = "KeyError: 'Patient Smith'"
    record["starts"][-1]["accepted_changes"] = ["data.hub_id: clinic/a -> clinic/records", "optim.lr: 1 -> 2"]
    record["starts"][-1]["setup"]["source"] = "of clinic/records"
    (failed.path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    text = describe(failed)
    assert '"loss": ' in text, "a figure, and no name"
    for private in ("clinic", "Smith", "lab_code"):
        assert private not in text, private
    for public in ("facebook/galactica-6.7b", "failed: KeyError", "data.hub_id: (left out)", "optim.lr: 1 -> 2"):
        assert public in text, public


def test_a_report_tells_nothing_private(failed: RunFolder, demo_records: list[dict[str, str]]) -> None:
    text = describe(failed)
    assert "node17" not in text
    assert "ada-private" not in text
    assert str(failed.path) not in text
    assert "0123456789" not in text
    for record in demo_records:
        for value in record.values():
            assert len(value) < 12 or value not in text
    config = (failed.path / "config.yaml").read_text(encoding="utf-8")
    assert "records.json" in config
    assert "records.json" not in text


def test_damaged_files_are_told_and_the_rest_is_there(failed: RunFolder) -> None:
    (failed.path / "run.json").write_text("{")
    (failed.path / "config.yaml").write_text("a: [")
    text = describe(failed)
    assert "- run.json: cannot be read" in text
    assert "- config.yaml: the configuration of the run cannot be read" in text
    assert '"grad_norm"' in text


def test_no_file_is_overwritten(failed: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bug_report(failed.path)
    assert (tmp_path / "bug-report-failed.md").read_text(encoding="utf-8").startswith("# A run that went wrong")
    with pytest.raises(InputError, match="already exists"):
        bug_report(failed.path)
