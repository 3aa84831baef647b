"""``srun galpaca rehearse``: a process for each task, which agree on when to kill and when to go on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import command

from cluster.slurm import Slurm


@pytest.mark.slow
@pytest.mark.cluster
def test_two_tasks_rehearse_together(slurm: Slurm, tmp_path: Path, tokenizer_folder: Path, records_file: Path) -> None:
    line = command(
        tmp_path,
        tokenizer_folder,
        records_file,
        *("strategy=fsdp", "trainer.devices=2", "trainer.max_steps=40", "trainer.max_epochs=100"),
    )
    done = subprocess.run(
        [
            *("srun", "--nodes=1", "--ntasks-per-node=2", "--ntasks=2"),
            *(sys.executable, "-m", "galpaca", "rehearse", "--json", *line[2:]),
        ],
        env={**os.environ, **slurm.environment, "MASTER_ADDR": "127.0.0.1"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,  # three starts of Python with torch in each task
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["verdict"] == "fits"
    assert figures["ranks"] == 2
    assert figures["killed_after_step"] > 10
    assert figures["resume_seconds"] > 0
    assert not (tmp_path / "runs" / "rehearsal").exists()
