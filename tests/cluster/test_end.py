"""Jobs that end for good: what is done is saved, and one line says why."""

import os
import signal
import time

import pytest

from cluster.conftest import Forking
from cluster.jobs import Job, Layout

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

LENGTH = "trainer.max_steps=250"


def test_a_run_that_does_not_come_back_is_saved_and_says_why(forking: Forking) -> None:
    desk = forking()
    again = "submit it again to resume from the last checkpoint"

    capped = desk.submit("ended", LENGTH, environment={"GALPACA_MAX_REQUEUES": "0"})
    capped.wait_for_step(3)
    capped.signal(signal.SIGUSR1)
    message = f"job {capped.id} is not requeued: it was requeued 0 times, and GALPACA_MAX_REQUEUES is 0; {again}"
    step = stays_away(capped, "FAILED", message, after=0)

    alone = desk.submit("ended", LENGTH, environment={"PATH": os.environ["PATH"]})
    alone.wait_for_step(step + 3)
    alone.signal(signal.SIGUSR1)
    reason = "scontrol is not on PATH (in a container, bind it in)"
    step = stays_away(alone, "FAILED", f"job {alone.id} is not requeued: {reason}; {again}", after=step)

    cancelled = desk.submit("ended", LENGTH)
    cancelled.wait_for_step(step + 3)
    cancelled.slurm.run("scancel", cancelled.id)
    stays_away(cancelled, "CANCELLED", "", after=step)


def test_a_rank_that_stands_still_is_named_and_the_job_ends(forking: Forking) -> None:
    desk = forking(real="[[ $SLURM_PROCID == 1 ]]")  # SLURM must end it itself
    job = desk.submit("hung", LENGTH, "hang.minutes=0.1", "hang.requeue=false")
    job.wait_for_step(3)
    job.signal_rank(1, signal.SIGSTOP)
    stopped = time.monotonic()
    facts = job.finish("FAILED")
    # Six seconds allowed, ten to hear of the others, and some for SLURM.
    assert time.monotonic() - stopped < 45
    assert facts["ExitCode"] == "75:0", job.output()
    (error,) = [line for line in job.output().splitlines() if line.startswith("error:")]
    assert "rank 1" in error
    assert "SIGSTOP" in error
    stacks = sorted((job.run / "stacks").rglob("rank-*.txt"))
    assert [path.name for path in stacks] == ["rank-00000.txt", "rank-00001.txt"]
    assert all("train_with_hydra" in path.read_text(encoding="utf-8") for path in stacks)


def test_a_job_that_cannot_work_says_so_in_one_line(forking: Forking) -> None:
    """Without a GPU, or with other processes than the run wants, which would wait for each other without an end."""
    desk = forking()
    no_gpu = desk.submit("no-gpu", "trainer=gpu", layout=Layout(tasks=1))
    fewer = desk.submit("fewer", layout=Layout(tasks=1), requested=Layout(tasks=2))
    nodes = desk.submit("nodes", layout=Layout(nodes=2, tasks=1), requested=Layout(tasks=2))
    for job in (no_gpu, fewer, nodes):
        job.finish("FAILED")
        assert not job.run.exists()
    assert "the run needs 1 GPU(s), but this machine has 0" in no_gpu.error(2)
    assert "SLURM started 1 task on 1 node" in fewer.error(2)
    assert "SLURM started 2 tasks on 2 nodes" in nodes.error(2)
    for job in (fewer, nodes):
        assert "#SBATCH --nodes=1\n" in job.output()
        assert "#SBATCH --ntasks-per-node=2\n" in job.output()


def stays_away(job: Job, state: str, message: str, after: int) -> int:
    """The step at which a job has ended for good, saved."""
    facts = job.finish(state)
    assert facts["Restarts"] == "0"
    if state == "FAILED":
        assert facts["ExitCode"] == "143:0", job.output()
    lines = [line for line in job.output().splitlines() if line.startswith(f"job {job.id} ")]
    assert lines == ([message] if message else []), job.output()
    assert "Traceback" not in job.output()
    saved = job.saved()
    assert saved == job.step() > after
    assert f"stopped after step {saved}, which is saved" in job.output()
    assert job.starts()[-1]["step"] == after
    return saved
