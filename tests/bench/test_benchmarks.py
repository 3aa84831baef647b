"""Benchmarks run, and write what they promise; their figures mean nothing here."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import DEMO, REPOSITORY, Started, completed
from forked import Forked
from old_runs.small_run import COMMIT, HALF
from safetensors.torch import load_file, save_file

from bench import old_runs
from bench.adapters import __main__ as adapters
from bench.adapters import turns as adapter_turns
from bench.adapters.records import make_pairs, read_facts
from bench.gpu.case import Case
from bench.gpu.training import measure
from bench.gpu.workload import SHAPES, Shape, make_examples
from bench.old_runs import Checkout, differences
from bench.peers import __main__ as peers
from bench.peers import turns


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=200)


def type_words(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """For a benchmark that is run in this process, and starts its own."""
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    monkeypatch.setattr(sys, "path", [*sys.path])


def saved(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    """Without TRL, an extra: losses equal galpaca's, and the figures are there by name. Contenders are forked."""

    def fork(command: list[str], *, cwd: Path, env: Mapping[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        return completed(Started(server, command, cwd, env))

    monkeypatch.setattr(turns, "subprocess", SimpleNamespace(run=fork, PIPE=None, STDOUT=None))
    type_words(
        monkeypatch,
        f"--data={DEMO / 'records.json'}",
        "--records=10",
        "--repeats=1",
        "--steps=3",
        "--only=galpaca,trainer",
        "--layers=6",
        "--hidden-size=64",
        "--heads=2",
        "--ffn-size=256",
        f"--out={tmp_path}",
    )
    assert peers.main() == 0
    found = saved(tmp_path)
    assert found["examples_per_second"].keys() == {"galpaca", "trainer"}
    assert found["ratio"].keys() == {"trainer"}
    assert found["largest_loss_difference"] < 1e-3
    assert found["records"] == 8, "whole steps"


def test_peers_refuses_a_head_that_outweighs_the_layers(tmp_path: Path) -> None:
    done = run(
        "bench.peers", f"--data={DEMO / 'records.json'}", "--hidden-size=64", "--layers=1", "--only=galpaca",
        "--ffn-size=256", "--records=8", f"--out={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 2
    assert "at most 33%" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    """One epoch of each; losses fall, PEFT's rates equal galpaca's, and the figures are there by name. All forked."""

    def fork(command: list[str], log: Path) -> int:
        done = completed(Started(server, command, REPOSITORY))
        assert done.returncode == 0, done.stdout + done.stderr
        return 1

    monkeypatch.setattr(adapter_turns, "run_measured", fork)
    type_words(
        monkeypatch,
        "--only=lora,peft_lora",
        "--seeds=1",
        "--epochs=1",
        "--base-epochs=1",
        f"--folder={tmp_path / 'work'}",
        f"--out={tmp_path}",
    )
    assert adapters.main() == 0
    found = saved(tmp_path)
    assert found["methods"].keys() == {"lora", "peft_lora"}
    for method in found["methods"].values():
        assert method["loss"]["held_out"]["value"] < found["base_loss"]["held_out"]["value"]
        assert method["examples_per_second"] > 0
    assert found["lora_less_peft"]["held_out"].keys() == {"1", "pooled"}
    assert abs(found["lora_less_peft"]["held_out"]["pooled"]["value"]) < 0.1


def test_pairs_that_are_held_out_are_in_no_wording_that_is_tuned_on() -> None:
    """And an epoch is whole steps; pairs of other subjects share no answer with those tuned on."""
    tuned, held_out, other_subjects = make_pairs(step_examples=8)
    assert len(tuned) % 8 == 0
    asked = " ".join(record["input"] for record in tuned)
    answered = " ".join(record["output"] for record in tuned)
    facts = read_facts()
    for fact in facts[:94]:
        assert f"{fact.held_out['instruction']} {fact.held_out['input']}".strip() not in asked
        assert fact.held_out["output"] in answered
    assert not any(fact.held_out["output"] in answered for fact in facts[94:])
    assert len(held_out) == 94
    assert len(other_subjects) == 46


def test_packing(tmp_path: Path) -> None:
    done = run("bench.packing", f"--lengths={REPOSITORY / 'bench' / 'gpu' / 'lengths.csv'}", f"--out={tmp_path}")
    assert done.returncode in (0, 1), done.stderr  # 512 lengths are too few for the bars
    assert len(saved(tmp_path)["rows"]) == 7


@pytest.mark.slow
def test_memory(tmp_path: Path, server: str) -> None:
    """The export of a small model; its load on two ranks takes half a minute. Only what is measured is not forked."""
    line = [
        sys.executable, "-m", "bench.memory", "--parts=export", "--layers=1", "--hidden-size=32", "--ffn-size=64",
        "--heads=2", "--vocabulary=2000", f"--folder={tmp_path}", f"--out={tmp_path}",
    ]  # fmt: skip
    done = completed(Started(server, line, REPOSITORY, hook="forked:fork_for_spawn"))
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = saved(tmp_path)["rows"]
    assert row["what"] == "galpaca export, float16"
    assert 0.05 < row["own_gib"] < 1.5
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"], "files were left behind"


@pytest.mark.slow
def test_old_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    """One process; two take longer. The present code's is forked."""
    known = ["git", "-C", str(REPOSITORY), "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    if subprocess.run(known, capture_output=True).returncode:
        pytest.skip(f"commit {COMMIT} is not in this clone: git fetch --unshallow")
    start_process = Checkout.start

    def start(checkout: Checkout, *arguments: str, folder: Path) -> Forked | subprocess.Popen[bytes]:
        if checkout.root != REPOSITORY:
            return start_process(checkout, *arguments, folder=folder)
        with (folder / "log").open("wb") as log:
            return Forked(server, arguments, cwd=folder, env=os.environ, stdout=log.fileno(), stderr=log.fileno())

    monkeypatch.setattr(Checkout, "start", start)
    type_words(monkeypatch, "--only=single", f"--out={tmp_path}")
    assert old_runs.main() == 0
    (row,) = saved(tmp_path)["rows"]
    assert row["result"] == "equal"
    assert row["resumed_after_step"] == HALF < row["killed_after_step"]
    assert row["commits"][0].startswith(COMMIT)


def test_a_difference_between_runs_is_found(tmp_path: Path) -> None:
    """Of a weight's last bit, and of a loss's."""
    finished = REPOSITORY / "tests" / "old_runs" / "finished"
    other = Path(shutil.copytree(finished, tmp_path / "other"))
    assert differences(finished, other) == []
    weights = load_file(other / "model" / "model.safetensors")
    name, weight = next(iter(weights.items()))
    weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(1.0))
    save_file(weights, other / "model" / "model.safetensors")
    metrics = other / "metrics.jsonl"
    metrics.write_text(metrics.read_text(encoding="utf-8").replace('"loss": 7.4', '"loss": 7.3', 1), encoding="utf-8")
    assert [found.partition(" 7")[0] for found in differences(finished, other)] == [name, "step 1: loss"]


def test_a_case_of_the_gpu_benchmark_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the project's own path: the same loss falls, and the row has what the table shows."""
    monkeypatch.setitem(SHAPES, "toy", Shape(2, 2, 32))
    case = Case("toy", "toy", "32-true", examples=4, max_tokens=1_024, timed_steps=2)
    row = measure(case, make_examples(count=16), torch.device("cpu"))
    assert row["tokens_per_second"] > 0
    assert row["recompilations"] == 0
    assert row["mfu"] is None
    assert len(row["losses"]) == 6
