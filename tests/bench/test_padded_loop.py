"""``bench.reference``: galpaca beside a padded loop of ``transformers``; and what it says when they differ."""

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO, REPOSITORY, Started, completed
from parity.flat_run import save_model
from transformers import AutoTokenizer, OPTForCausalLM

from bench.reference import __main__ as reference
from bench.reference import plain
from bench.reference.compare import compare, whole_lines
from bench.session import OutOfTimeError
from examples import flat_loop
from galpaca.app.config.composition import compose
from galpaca.runs.shutdown import Shutdown

STEP = {"step": 1, "loss": 7.0, "grad_norm": 2.0, "lr": 1e-5, "tokens": 900, "target_tokens": 400}


def test_tiny(tmp_path: Path, server: str) -> None:
    """Two processes under DDP train what the padded loop trains; the difference is one of float32's sums."""
    line = [sys.executable, "-m", "bench.reference", "--tiny", "--steps=6", f"--out={tmp_path}"]
    hook: dict[str, Any] = {"hook": "faults.rehearsals:fork_children", "hook_arguments": (server,)}
    done = completed(Started(server, line, REPOSITORY, **hook))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*_reference-tiny-32-true_*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["compared"]["steps_compared"] == 6
    assert found["compared"]["largest_differences"]["loss"] < 1e-6
    assert found["configuration"]["devices"] == 2
    assert len(found["galpaca"]["lines"]) == len(found["plain"]["lines"]) == 6


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"loss": 7.01}, "loss"),
        ({"loss": None}, "loss"),
        ({"grad_norm": 2.1}, "grad_norm"),
        ({"lr": 2e-5}, "lr"),
        ({"target_tokens": 401}, "target_tokens"),
    ],
)
def test_a_step_that_differs_fails_and_is_named(changed: dict[str, Any], problem: str) -> None:
    assert compare([STEP], [STEP], "32-true", 1)["passed"]
    found = compare([{**STEP, **changed}], [STEP, {**STEP, "step": 2}], "32-true", 2)
    assert not found["passed"]
    assert found["problems"][0].startswith(f"step 1: {problem} ")
    assert not compare([STEP], [], "32-true", 1)["passed"], "nothing was compared"


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    assert whole_lines(path) == []
    path.write_text(json.dumps(STEP) + '\n{"step": 2, "lo', encoding="utf-8")
    assert whole_lines(path) == [STEP]


def test_the_plain_loop_imports_nothing_of_the_project() -> None:
    source = (REPOSITORY / "bench" / "reference" / "plain.py").read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    imported = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert not [name for name in imported if name.split(".")[0] in ("galpaca", "bench")]


def test_padding_changes_no_loss(tmp_path: Path, tokenizer_folder: Path, demo_records: list[dict[str, str]]) -> None:
    """Of a micro-batch of examples of several lengths, one of them truncated, beside each alone by the flat loop."""
    model = OPTForCausalLM.from_pretrained(save_model(tmp_path / "model", tokenizer_folder), dtype=torch.float64)
    examples = plain.encode(demo_records[::70], AutoTokenizer.from_pretrained(tokenizer_folder), 60)
    assert len({len(ids) for ids, _ in examples}) > 1
    assert max(len(ids) for ids, _ in examples) == 60
    alone = sum(flat_loop.nll_sum(model, *example).item() for example in examples)
    together = model(**plain.padded(examples, "cpu")).loss.item() * plain.num_targets(examples)
    assert together == pytest.approx(alone, rel=1e-6)  # the loss is float32


def test_the_command_is_alpacas_recipe_on_galacticas_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["reference"])
    given = reference.arguments()
    job = reference.make_job(given, tmp_path)
    config, _ = compose(reference.overrides(given, job, tmp_path))
    assert config.model.path == job.model == "facebook/galactica-125m"
    assert config.model.dropout == 0.0
    assert (config.data.hub_id, config.data.max_length) == (job.records, job.max_length)
    assert (config.batch.examples, config.optim.lr, config.seed) == (job.examples_per_step, job.lr, job.seed)
    assert config.optim.clip_norm == flat_loop.Recipe().clip_norm
    assert config.optim.warmup_ratio == flat_loop.Recipe().warmup_ratio


def test_a_program_that_fails_is_shown_and_one_that_is_late_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["reference", f"--data={DEMO / 'records.json'}", f"--out={tmp_path}"])
    given = reference.arguments()
    job = reference.make_job(given, tmp_path)
    session = reference.ReferenceSession(given)
    programs = reference.Programs(tmp_path, session)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Shutdown().listening(), pytest.raises(RuntimeError, match=r"the loop ended with 1"):
        programs.plain(job)
    sleeps = tmp_path / "sleeps"
    sleeps.write_text("#!/bin/sh\nsleep 60\n", encoding="utf-8")
    sleeps.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeps))
    given.minutes = -1.0
    late = reference.Programs(tmp_path, reference.ReferenceSession(given))
    assert late.plain(job)["ended"] is False
    with pytest.raises(OutOfTimeError):
        late.galpaca(given, job)
