"""Compute nodes without a network, as most clusters have them."""

import sys
from pathlib import Path

import pytest
from conftest import DEMO, Started, completed
from wandb_server import KEY, serving

from cluster.conftest import slurm_or_skip
from cluster.jobs import Desk
from cluster.slurm import Kind
from galpaca.runs.metrics import read_metrics
from galpaca.tracking.rows import line_number

STEPS = 6


@pytest.mark.slow
@pytest.mark.cluster
def test_a_job_without_any_network_finishes_and_is_shown_from_elsewhere(
    slurm_prefix: Path, records_file: Path, tmp_path: Path, server: str
) -> None:
    """Nothing tells it so: it is W&B and the hub that must not wait for an answer. Another machine sends its lines."""
    asks = {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "", "HF_DATASETS_OFFLINE": "", "WANDB_MODE": ""}
    own = {"HOME": str(tmp_path), "WANDB_CACHE_DIR": str(tmp_path)}
    with serving() as wandb, slurm_or_skip(slurm_prefix, Kind(network="none")) as slurm:
        desk = Desk(slurm, tmp_path, DEMO / "tokenizer", records_file)
        job = desk.submit(
            "offline", f"trainer.max_steps={STEPS}", "logger=wandb", environment={**asks, "WANDB_API_KEY": KEY}
        )
        job.wait_for_step(1)
        line = [sys.executable, "-m", "galpaca", "sync", "--follow", str(job.run)]
        following = Started(server, line, tmp_path, {**own, **wandb.environment})
        job.finish()
        assert completed(following, 120).returncode == 0
    job.assert_every_step_once(STEPS)
    assert "Traceback" not in job.output()
    assert f" does not respond; trying again, and galpaca sync --follow {job.run} shows it" in job.output()
    assert (job.run / "model" / "model.safetensors").is_file()
    (received,) = wandb.runs.values()
    numbers = [one["line"] for one in received.history if "line" in one]
    assert numbers == [line_number(line) for line in read_metrics(job.run / "metrics.jsonl")]
    assert received.finishes[-1] == 0
