"""What libraries announce is seen in every process of a test, and fails it unless it is listed.

Training hushed it in tests too, so that a removal would have been the first sign.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from conftest import REPOSITORY, STARTUP, Train
from libraries.announcing import MESSAGE
from libraries.deprecations import TOLERATED, Log, unlisted

from galpaca.training.trainer import _hush_libraries

PLANTED = "+callbacks.planted._target_=libraries.announcing.Announcing"


def test_every_entry_says_why() -> None:
    for entry in TOLERATED:
        assert len(entry.reason.split()) > 4
        assert ":" not in entry.message
        assert unlisted(_line(entry.message.replace("\\", ""), entry.kind)) == []
        assert unlisted(_line(f"before {entry.message}", entry.kind))


def _line(message: str, kind: str) -> str:
    return json.dumps({"message": message, "kind": kind, "where": "x.py:1", "command": []}) + "\n"


@pytest.mark.parametrize("ranks", [1, 2])
def test_forked_runs_are_watched_in_every_rank(train: Train, announcements: Log, ranks: int) -> None:
    strategy = ["strategy=ddp", "trainer.devices=2"] if ranks == 2 else []
    done = train("trainer.max_steps=1", PLANTED, *strategy)
    assert done.returncode == 0, done.stderr
    found = unlisted(announcements.new_lines())
    assert len(found) == ranks
    assert all(MESSAGE in line and "train.py" in line for line in found)
    assert MESSAGE not in done.stderr


def test_a_run_in_a_process_of_its_own_is_watched(train: Train, announcements: Log) -> None:
    path = os.pathsep.join([STARTUP, str(REPOSITORY / "tests")])
    done = train("trainer.max_steps=1", PLANTED, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert [MESSAGE in line for line in unlisted(announcements.new_lines())] == [True]


def warning_from(file: str) -> str:
    return f"import warnings; warnings.warn_explicit('f is gone soon', FutureWarning, '/home/me/{file}', 1)"


@pytest.mark.parametrize(
    ("code", "is_announced"),
    [
        ("import warnings; warnings.warn('torch.f is gone soon', DeprecationWarning)", True),
        ("import warnings; warnings.warn('torch.f will be removed in 3.0', UserWarning)", True),
        (warning_from("src/galpaca/model/opt.py"), True),
        (warning_from(".venv/lib/python3.11/site-packages/transformers/x.py"), True),
        (warning_from("galpaca/.venv/lib/python3.11/site-packages/pandas/x.py"), False),
        ("import warnings; warnings.warn('pandas.f is gone soon', DeprecationWarning)", False),
        ("import warnings; warnings.warn('the disk of torch is slow', UserWarning)", False),
        ("import logging; logging.getLogger('transformers.x').warning('`torch_dtype` is deprecated')", True),
        ("import logging; logging.getLogger('transformers.x').warning('the disk is slow')", False),
    ],
)
def test_what_is_an_announcement(tmp_path: Path, announcements: Log, code: str, is_announced: bool) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert len(unlisted(announcements.new_lines())) == is_announced
    is_shown = not is_announced and "DeprecationWarning" not in code
    assert bool(done.stderr) is is_shown or "logging" in code


def test_in_a_test_itself_it_is_an_error() -> None:
    with pytest.raises(FutureWarning):
        warnings.warn_explicit("planted", FutureWarning, "torch/planted.py", 1, module="torch.planted")
    warnings.warn_explicit(
        "`isinstance(treespec, LeafSpec)` is deprecated", FutureWarning, "lightning/x.py", 1, module="lightning.x"
    )


@pytest.mark.parametrize(("options", "seen"), [([], 0), (["default"], 1)])
def test_users_are_spared_unless_they_ask(monkeypatch: pytest.MonkeyPatch, options: list[str], seen: int) -> None:
    monkeypatch.setattr(sys, "warnoptions", options)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        _hush_libraries()
        warnings.warn_explicit("planted", FutureWarning, "torch/planted.py", 1, module="torch.planted")
    assert len(shown) == seen
