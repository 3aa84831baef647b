"""Too many or too few processes would wait for each other for half an hour."""

from typing import Any

import pytest
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from galpaca.app.cluster.launch import check_launch
from galpaca.app.cluster.ranks import num_launched
from galpaca.errors import InputError
from galpaca.training.process_group import cluster_environment
from galpaca.training.specs import TrainerSpec

STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}
SHELL = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_PTY_PORT": "1"}


def slurm(tasks: int, nodes: int, per_node: str | None = None) -> dict[str, str]:
    found = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": str(tasks), "SLURM_NNODES": str(nodes)}
    return found | ({"SLURM_NTASKS_PER_NODE": per_node} if per_node else {})


def torchrun(total: int, per_node: int) -> dict[str, str]:
    return {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": str(total), "LOCAL_WORLD_SIZE": str(per_node)}


@pytest.mark.parametrize(
    ("requested", "environment"),
    [
        ({"devices": 4}, {}),
        ({"devices": 4}, slurm(4, 1, "4") | STEP),
        ({"devices": 4, "num_nodes": 2}, slurm(8, 2, "4") | STEP),
        ({"devices": 1}, slurm(1, 1) | STEP),
        ({"devices": 1}, slurm(4, 1, "4")),  # in the job's script, without srun
        ({"devices": 4}, slurm(1, 1) | STEP | {"SLURM_PTY_PORT": "1"}),  # a shell on a node
        ({"devices": 4}, slurm(4, 1, "4") | STEP | SHELL),  # a shell that salloc has opened
        ({"devices": 1}, slurm(4, 1, "4") | STEP | SHELL),
        ({"devices": 4}, {"SLURM_JOB_ID": "7"} | STEP | SHELL),  # where nobody requested a number of tasks
        (
            {"devices": 4},
            slurm(1, 1) | STEP | {"LOCAL_RANK": "1", "GALPACA_LAUNCHER": "7"},
        ),  # a child that it has started
        ({"devices": 2, "num_nodes": 2}, torchrun(4, 2)),
        ({"devices": 2, "num_nodes": 2}, torchrun(4, 2) | slurm(2, 2, "1") | STEP),  # srun torchrun
        ({"devices": 1}, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}),  # an image's, and true
        ({"devices": 4}, slurm(4, 1, "4") | STEP | {"RANK": "0", "WORLD_SIZE": "4"}),  # a script's, and true
        ({"devices": 4}, slurm(4, 1, "4") | STEP | {"PMI_SIZE": "4"}),
        ({"devices": 1}, {"OMPI_COMM_WORLD_SIZE": "1"}),
    ],
)
def test_what_fits_passes(requested: dict[str, Any], environment: dict[str, str]) -> None:
    check_launch(TrainerSpec(**requested), environment)


@pytest.mark.parametrize(
    ("requested", "environment", "message"),
    [
        ({"devices": 4}, slurm(2, 1, "2") | STEP, "SLURM started 2 tasks on 1 node, but the run needs 4 processes"),
        ({"devices": 2, "num_nodes": 2}, slurm(4, 1, "4") | STEP, "--nodes=2"),
        ({"devices": 2}, slurm(2, 1) | STEP, "--ntasks alone does not put 2 tasks on each node"),
        ({"devices": 1}, slurm(4, 1, "4") | STEP, "SLURM started 4 tasks on 1 node, but the run needs 1 process"),
        ({"devices": 4}, slurm(4, 1, "4"), "srun python train.py"),
        ({"devices": 4}, slurm(1, 1) | STEP, "--ntasks-per-node=4"),
        ({"devices": 4}, torchrun(2, 2), "torchrun --nnodes=1 --nproc-per-node=4"),
        ({"devices": 2, "num_nodes": 2}, torchrun(4, 4), "trainer.devices=4 trainer.num_nodes=1"),
        ({"devices": 1}, {"RANK": "1"}, "unset RANK;"),
        ({"devices": 1}, {"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, "LOCAL_RANK=1, WORLD_SIZE=2"),
        ({"devices": 2}, {"LOCAL_RANK": "0"}, "unset LOCAL_RANK;"),
        ({"devices": 1, "num_nodes": 2}, {"NODE_RANK": "1"}, "--nnodes=2 --node-rank=NODE --master-addr=FIRST_NODE"),
        ({"devices": 1, "num_nodes": 2}, {}, "torchrun --nnodes=2"),
        ({"devices": 4}, slurm(4, 1, "4") | STEP | {"RANK": "1"}, "unset RANK;"),
        ({"devices": 1}, {"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun started 2 processes"),
    ],
)
def test_what_does_not_is_reported_with_the_lines_to_change(
    requested: dict[str, Any], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_launch(TrainerSpec(**requested), environment)
    assert message in str(caught.value)


def test_a_cpu_run_asks_for_no_gpus() -> None:
    with pytest.raises(InputError) as caught:
        check_launch(TrainerSpec(accelerator="cpu", devices=2), slurm(1, 1) | STEP)
    assert "gres" not in str(caught.value)


@pytest.mark.parametrize("job", [slurm(4, 1, "4"), {"SLURM_JOB_ID": "7"}])
def test_a_shell_that_salloc_has_opened_is_one_process(monkeypatch: pytest.MonkeyPatch, job: dict[str, str]) -> None:
    """It shows the job's number of tasks, or none: a run waited for processes that nobody had started."""
    for name in ("SLURM_NTASKS", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (job | STEP | SHELL).items():
        monkeypatch.setenv(name, value)
    assert num_launched() == 1
    assert isinstance(cluster_environment(4), LightningEnvironment)
