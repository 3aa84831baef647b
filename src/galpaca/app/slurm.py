"""The SLURM job that this process belongs to, and whether it is requeued."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

# Requeues before a job is considered never-ending.
_MAX_REQUEUES = 20
_CAP = "GALPACA_MAX_REQUEUES"
_ANSWER_SECONDS = 60


@dataclass(frozen=True)
class SlurmJob:
    """A job as ``scontrol`` knows it.

    Attributes:
        id: ``JOB``, or ``JOB_TASK`` for one of an array.
        restarts: how often it has been requeued.
    """

    id: str
    restarts: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> SlurmJob | None:
        """The job from SLURM's environment variables; None outside a job."""
        number = environment.get("SLURM_JOB_ID")
        if not number:
            return None
        array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        restarts = int(environment.get("SLURM_RESTART_COUNT") or 0)
        return cls(f"{array}_{task}" if array and task else number, restarts)

    def facts(self) -> dict[str, str]:
        """The fields of ``scontrol show job``.

        Raises:
            ScontrolError: it fails.
        """
        words = _scontrol("show", "job", "-o", self.id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def requeue(self) -> None:
        """Requeues the job, which ends its processes.

        Raises:
            ScontrolError: SLURM refuses.
        """
        try:
            _scontrol("requeue", self.id)
        except ScontrolError:
            if self.facts().get("JobState") == "RUNNING":
                raise
            # Another rank was faster, or the job's end has ended scontrol as well.


class ScontrolError(Exception):
    """``scontrol`` is missing or failed."""


@dataclass(frozen=True)
class Decision:
    """Whether a job that was asked to stop is requeued.

    Attributes:
        job: the job to requeue; None if it is not requeued.
        told: one line for the job log; empty if there is nothing to report.
    """

    job: SlurmJob | None
    told: str = ""


def decide(number: int, environment: Mapping[str, str] = os.environ) -> Decision:
    """Decides whether a run that a signal stopped cleanly is requeued.

    SIGUSR1 is the scheduler's warning before the time limit or a preemption. SIGTERM alone also comes from ``scancel``,
    from the time limit and from ``scontrol requeue``; only where the job is about to be preempted must it be put back
    by hand, since a job that ends within its grace time counts as done.
    """
    job = SlurmJob.of(environment)
    if job is None or number == signal.SIGINT:
        return Decision(None)
    again = "submit it again to resume from the last checkpoint"
    try:
        facts = job.facts()
        most = _most_requeues(environment)
    except (ScontrolError, ValueError) as error:
        return Decision(None, f"job {job.id} is not requeued: {error}; {again}")
    preempted = facts.get("PreemptTime", "None") not in ("None", "Unknown", "N/A")
    if not preempted and (number != signal.SIGUSR1 or facts.get("JobState") != "RUNNING"):
        return Decision(None)  # somebody else decides
    if facts.get("BatchFlag") == "0":
        return Decision(None, f"job {job.id} is interactive, which SLURM does not requeue; rerun the command to resume")
    if job.restarts >= most:
        told = f"job {job.id} is not requeued: it was requeued {job.restarts} times, and {_CAP} is {most}; {again}"
        return Decision(None, told)
    return Decision(job, f"job {job.id} is requeued: restart {job.restarts + 1} of at most {most}")


def requeue(decision: Decision) -> str:
    """Carries out the decision.

    Returns:
        One line for the job log; empty if there is nothing to report.
    """
    if decision.job is not None:
        try:
            decision.job.requeue()
        except ScontrolError as error:
            return f"job {decision.job.id} is not requeued: {error}"
    return decision.told


def _most_requeues(environment: Mapping[str, str]) -> int:
    given = environment.get(_CAP) or str(_MAX_REQUEUES)
    if not given.isdecimal():
        raise ValueError(f"{_CAP} must be a number, got {given!r}")
    return int(given)


def _scontrol(*arguments: str) -> str:
    if shutil.which("scontrol") is None:
        raise ScontrolError("scontrol is not on PATH (in a container, bind it in)")
    try:
        done = subprocess.run(
            ["scontrol", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScontrolError(f"scontrol does not respond ({error})") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ScontrolError(f"scontrol {arguments[0]} failed: {said[-1] if said else done.returncode}")
    return done.stdout
