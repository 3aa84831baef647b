"""``galpaca cite`` and the card say of a run what its files say."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from galpaca.app.train.machines import taken_steps
from galpaca.app.train.methods import energy_kwh, methods
from galpaca.runs.checkpoints import read_manifest
from galpaca.runs.record_fields import Machine, RunContent, Start
from galpaca.runs.typed import decode


def test_a_paragraph_and_the_citations_of_a_run(run: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "galpaca", "cite", str(run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    paragraph, _, bibtex = done.stdout.partition("\n\n")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for fact in (
        f"tuned on {record['examples']['train']} records of records.json",
        "4 steps",
        "of 8 examples of at most 256 tokens",
        f"The learning rate was {record['recipe']['optim.lr']:g}",
        "the seed 42",
        f"steps 1 to 4 on 2 processes, {record['starts'][-1]['machine']['device']}: ",
        "process-hours",
        f"torch {record['starts'][-1]['versions']['torch']}",
    ):
        assert fact in paragraph, fact
    assert bibtex.strip().startswith("@article{GALACTICA")
    card = (run / "model/README.md").read_text(encoding="utf-8")
    assert bibtex.strip() in card
    assert paragraph.partition(" Software:")[0] in card


def test_two_machines_are_two_and_a_lost_time_is_no_time(run: Path, tmp_path: Path) -> None:
    """The last machine stood for all steps, and steps whose lines were lost took no time."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    machine = {"processes": 4, "nodes": 1, "memory_bytes": 1}
    starts = [
        Start(step=0, machine=Machine(device="NVIDIA A", **machine)),
        Start(step=2, machine=Machine(device="NVIDIA B", **machine)),
    ]
    whole = [(one.what, one.how) for one in taken_steps(starts, run / "metrics.jsonl", 4)]
    assert [what for what, _ in whole] == ["steps 1 to 2", "steps 3 to 4"]
    assert whole[0][1].startswith("4 processes, NVIDIA A: ")
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[1:]), encoding="utf-8")
    first, second = taken_steps(starts, tmp_path / "metrics.jsonl", 4)
    assert first.how == "4 processes, NVIDIA A: time not recorded"
    assert second.seconds is not None
    content = replace(decode(RunContent, record), starts=tuple(starts))
    manifest = read_manifest(run / "checkpoints/step-00000004")
    for metrics, has_hours in ((run / "metrics.jsonl", True), (tmp_path / "metrics.jsonl", False)):
        said = methods(content, manifest, metrics, tmp_path / "none", "all parameters")
        assert "NVIDIA A" in said
        assert "NVIDIA B" in said
        assert ("GPU-hours in steps" in said) == has_hours


def test_energy_is_the_integral_of_power(tmp_path: Path) -> None:
    """Two GPUs of 300 W for 30 s, and a gap between two starts that no power is known of."""
    times = [0.0, 15.0, 30.0, 10_000.0, 10_015.0]
    lines = [{"time": at, "step": 1, "gpu0_power_watts": 200.0, "gpu1_power_watts": 400.0} for at in times]
    path = tmp_path / "system.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert abs(energy_kwh(path) - 600 * 45 / 3.6e6) < 1e-12
    assert energy_kwh(tmp_path / "none") == 0.0
