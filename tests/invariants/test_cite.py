"""``galpaca cite`` and the card say of a run what its files say."""

import json
import subprocess
import sys
from pathlib import Path

from galpaca.app.train.methods import energy_kwh


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
        f"on 2 x {record['starts'][-1]['machine']['device']}",
        "process-hours",
        f"torch {record['starts'][-1]['versions']['torch']}",
    ):
        assert fact in paragraph, fact
    assert bibtex.strip().startswith("@article{GALACTICA")
    card = (run / "model/README.md").read_text(encoding="utf-8")
    assert bibtex.strip() in card
    assert paragraph.partition(" Software:")[0] in card


def test_energy_is_the_integral_of_power(tmp_path: Path) -> None:
    """Two GPUs of 300 W for 30 s, and a gap between two starts that no power is known of."""
    times = [0.0, 15.0, 30.0, 10_000.0, 10_015.0]
    lines = [{"time": at, "step": 1, "gpu0_power_watts": 200.0, "gpu1_power_watts": 400.0} for at in times]
    path = tmp_path / "system.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert abs(energy_kwh(path) - 600 * 45 / 3.6e6) < 1e-12
    assert energy_kwh(tmp_path / "none") == 0.0
