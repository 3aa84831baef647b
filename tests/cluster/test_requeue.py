"""A job that is warned, preempted, requeued: its run goes on where it was."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.conftest import Forking
from cluster.forking import STEP_SECONDS
from cluster.jobs import Job, Layout

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

# Small steps that take a while: few are then enough for all that happens meanwhile.
STEPS = 100
SHORT = (f"trainer.max_steps={STEPS}", "model.num_layers=1", "batch.examples=2")
SLOW = {STEP_SECONDS: "0.1"}


def test_a_run_that_is_interrupted_in_every_way_ends_as_one_that_never_was(forking: Forking, server: str) -> None:
    """Two FSDP ranks. Warned before the time limit, again while it starts, preempted, requeued by an administrator."""
    desk = forking(real="[[ $SLURM_RESTART_COUNT == 1 ]]")
    job = desk.submit("disturbed", *SHORT, "logger=wandb", environment=SLOW)
    job.wait_for_step(3)
    with standing_still(job):
        # Of one process: a second that is already waiting for the first would be killed, and SLURM show its code.
        intruder = desk.submit("disturbed", *SHORT, layout=Layout(tasks=1))
        intruder.finish("FAILED")
    assert intruder.error(2) == f"error: {job.run}: another process is writing in this run folder"

    job.signal(signal.SIGUSR1)
    saved = comes_back(job, 1)
    assert f"job {job.id} is requeued: restart 1 of at most 20" in job.output()

    job.signal(signal.SIGUSR1)  # while it imports
    assert comes_back(job, 2) == saved
    assert "stopped by SIGUSR1" in job.output()

    job.wait_for_step(saved + 3)
    desk.preempt(job)
    saved = comes_back(job, 3)
    assert "is requeued: restart 3" in job.output()

    job.wait_for_step(saved + 3)
    job.slurm.run("scontrol", "requeue", job.id)
    comes_back(job, 4)
    assert "is requeued: restart 4" not in job.output(), "SLURM does it"

    assert job.finish()["Restarts"] == "4"
    assert len(job.starts()) == 4  # the second of five was not to write anything
    job.assert_every_step_once(STEPS)
    job.assert_equals(desk.straight(server, *SHORT))
    assert "WANDB_MODE=offline; galpaca sync --follow" in job.output()
    assert not (job.run / "wandb").exists()


@contextmanager
def standing_still(job: Job) -> Iterator[None]:
    """So that what happens meanwhile may take its time. The other ranks wait for rank 0."""
    pid = json.loads((job.run / "run.lock").read_text(encoding="utf-8"))["pid"]
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


def comes_back(job: Job, restarts: int) -> int:
    """Waits until a job is back, and its signals are taken; returns the step that it was saved at, its very last."""
    job.wait_until_away(restarts)
    saved = job.saved()
    assert saved == job.step(), "steps were lost"
    job.wait_for_handlers(restarts)
    return saved
