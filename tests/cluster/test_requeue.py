"""Jobs that are warned, preempted, requeued, cancelled: a run goes on where it was, or says in one line why not."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import DEMO

from cluster.conftest import slurm_or_skip
from cluster.forking import make_environment
from cluster.jobs import Desk, Job, Layout
from cluster.slurm import Kind

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

STEPS = 250
LENGTH = f"trainer.max_steps={STEPS}"


@pytest.fixture(scope="module")
def desk(slurm_prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    # A job that must make room gets SIGTERM only.
    with slurm_or_skip(slurm_prefix, Kind(preempt_user_signal=False, kill_wait_seconds=30)) as slurm:
        folder = tmp_path_factory.mktemp("jobs")
        records = folder / "records.json"
        records.write_text(json.dumps(json.loads((DEMO / "records.json").read_text(encoding="utf-8"))[::12][:40]))
        yield Desk(slurm, folder, DEMO / "tokenizer", records)


@pytest.fixture
def forking(desk: Desk, server: str, tmp_path: Path) -> Desk:
    """The same for jobs that get a signal after their imports or none, and are spared the imports."""
    python = make_environment(tmp_path / "forking", server) / "bin" / "python"
    return Desk(desk.slurm, desk.folder, desk.tokenizer, desk.records, str(python))


def test_a_run_that_is_interrupted_in_every_way_ends_as_one_that_never_was(
    desk: Desk, forking: Desk, server: str
) -> None:
    """Two FSDP ranks. Warned before the time limit, again while it starts, preempted, requeued by an administrator."""
    job = desk.submit("disturbed", LENGTH, "logger=wandb")
    job.wait_for_step(3)
    with standing_still(job):
        # Of one process: a second that is already waiting for the first would be killed, and SLURM show its code.
        intruder = forking.submit("disturbed", LENGTH, layout=Layout(tasks=1))
        intruder.finish("FAILED")
    assert error_of(intruder, 2) == f"error: {job.run}: another process is writing in this run folder"

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
    job.assert_equals(desk.straight(server, LENGTH))
    assert "WANDB_MODE=offline; galpaca sync --follow" in job.output()
    assert not (job.run / "wandb").exists()


def test_a_run_that_does_not_come_back_is_saved_and_says_why(forking: Desk) -> None:
    again = "submit it again to resume from the last checkpoint"

    capped = forking.submit("ended", LENGTH, environment={"GALPACA_MAX_REQUEUES": "0"})
    capped.wait_for_step(3)
    capped.signal(signal.SIGUSR1)
    message = f"job {capped.id} is not requeued: it was requeued 0 times, and GALPACA_MAX_REQUEUES is 0; {again}"
    step = stays_away(capped, "FAILED", message, after=0)

    alone = forking.submit("ended", LENGTH, environment={"PATH": os.environ["PATH"]})
    alone.wait_for_step(step + 3)
    alone.signal(signal.SIGUSR1)
    reason = "scontrol is not on PATH (in a container, bind it in)"
    step = stays_away(alone, "FAILED", f"job {alone.id} is not requeued: {reason}; {again}", after=step)

    cancelled = forking.submit("ended", LENGTH)
    cancelled.wait_for_step(step + 3)
    cancelled.slurm.run("scancel", cancelled.id)
    stays_away(cancelled, "CANCELLED", "", after=step)


def test_a_rank_that_stands_still_is_named_and_the_job_ends(desk: Desk) -> None:
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


def test_a_job_that_cannot_work_says_so_in_one_line(forking: Desk) -> None:
    """Without a GPU, or with other processes than the run wants, which would wait for each other without an end."""
    no_gpu = forking.submit("no-gpu", "trainer=gpu", layout=Layout(tasks=1))
    fewer = forking.submit("fewer", layout=Layout(tasks=1), requested=Layout(tasks=2))
    nodes = forking.submit("nodes", layout=Layout(nodes=2, tasks=1), requested=Layout(tasks=2))
    for job in (no_gpu, fewer, nodes):
        job.finish("FAILED")
        assert not job.run.exists()
    assert "the run needs 1 GPU(s), but this machine has 0" in error_of(no_gpu, 2)
    assert "SLURM started 1 task on 1 node" in error_of(fewer, 2)
    assert "SLURM started 2 tasks on 2 nodes" in error_of(nodes, 2)
    for job in (fewer, nodes):
        assert "#SBATCH --nodes=1\n" in job.output()
        assert "#SBATCH --ntasks-per-node=2\n" in job.output()


@contextmanager
def standing_still(job: Job) -> Iterator[None]:
    """So that what happens meanwhile may take its time."""
    pids = job.pids().values()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def comes_back(job: Job, restarts: int) -> int:
    """Waits until a job is back, and its signals are taken; returns the step that it was saved at, its very last."""
    job.wait_for_handlers(restarts)
    assert job.saved() == job.step(), "steps were lost"
    return job.saved()


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


def error_of(job: Job, exit_code: int) -> str:
    """The one line in which it says what is wrong."""
    assert job.slurm.facts(job.id)["ExitCode"] == f"{exit_code}:0", job.output()
    errors = [line for line in job.output().splitlines() if line.startswith("error")]
    assert len(errors) == 1, job.output()
    assert "Traceback" not in job.output()
    return errors[0]
