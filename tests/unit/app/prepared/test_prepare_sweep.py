"""``galpaca prepare --sweep``: a list is read as the job reads it, and told what is wrong with it before it queues."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from galpaca.app.prepared.sweep import prepare_sweep, read_list
from galpaca.errors import InputError

LIST = "# rates\noptim.lr=1e-5\n\n  optim.lr=2e-5 'run.name=a b'\r\n# and length\ndata.max_length=100\n"


def test_runs_are_counted_as_tasks_are(tmp_path: Path) -> None:
    path = tmp_path / "rates.txt"
    path.write_text(LIST)
    runs = read_list(path)
    assert [(run.number, run.line, run.overrides) for run in runs] == [
        (1, 2, ("optim.lr=1e-5",)),
        (2, 4, ("optim.lr=2e-5", "run.name=a b")),
        (3, 6, ("data.max_length=100",)),
    ]


def test_what_runs_share_is_prepared_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rates.txt"
    path.write_text(LIST)
    line = ["prepare", "--sweep", path, "+experiment=demo", f"run.root={tmp_path / 'runs'}"]
    done = subprocess.run(
        [sys.executable, "-m", "galpaca", *map(str, line)], capture_output=True, text=True, cwd=REPOSITORY
    )
    said = done.stdout
    assert said.count("\nprepared\n") == said.count("(created)") == 2, "the third has shorter examples"
    assert "2 prepared, which is all that the 3 runs" in said
    assert f"sbatch --array=1-3 --gres=none slurm/sweep.sbatch {path} +experiment=demo" in said


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("optim.lrr=1\noptim.lr=0\n", ["line 1: optim.lrr: unknown", "line 2: optim.lr: must be > 0"]),
        ("optim.lr='1\n", ["line 1: unclosed quote"]),
        ("# nothing\n", ["the list has no run"]),
    ],
)
def test_all_that_is_wrong_is_told_at_once(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "rates.txt"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        prepare_sweep(path, ["+experiment=demo", f"run.root={tmp_path / 'runs'}"])
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "runs").exists()
