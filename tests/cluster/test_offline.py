"""Compute nodes without a network, as most clusters have them."""

import json
from pathlib import Path

import pytest
from conftest import DEMO

from cluster.conftest import slurm_or_skip
from cluster.jobs import Desk
from cluster.slurm import Kind
from galpaca.cli import main

STEPS = 6


@pytest.mark.slow
@pytest.mark.cluster
def test_a_job_without_any_network_finishes(
    slurm_prefix: Path, records_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing tells it so: it is W&B and the hub that must not wait for an answer."""
    asks = {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "", "HF_DATASETS_OFFLINE": "", "WANDB_MODE": ""}
    with slurm_or_skip(slurm_prefix, Kind(network="none")) as slurm:
        desk = Desk(slurm, tmp_path, DEMO / "tokenizer", records_file)
        job = desk.submit("offline", f"trainer.max_steps={STEPS}", "logger=wandb", environment=asks)
        job.finish()
    job.assert_every_step_once(STEPS)
    assert "Traceback" not in job.told()
    assert (job.run / "model" / "model.safetensors").is_file()
    record = json.loads((job.run / "run.json").read_text(encoding="utf-8"))
    (folder,) = (job.run / "wandb").glob("offline-run-*")
    assert folder.name.endswith(record["id"])
    capsys.readouterr()
    assert main(["sync", str(job.run), "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert folder.name in listed
    assert f"1 to {STEPS}" in listed
    assert "not uploaded" in listed
