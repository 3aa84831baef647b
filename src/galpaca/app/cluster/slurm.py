"""The SLURM job that this process belongs to, and whether it is requeued."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

# Requeues before a job is considered never-ending.
_MAX_REQUEUES = 20
_CAP = "GALPACA_MAX_REQUEUES"
# Set by slurm/submit: which of how many jobs of a run that wait for one another, as 2/5.
_CHAIN = "GALPACA_CHAIN"
_ANSWER_SECONDS = 60
# Many jobs that reach their time limit together keep the controller busy. A warning leaves minutes.
_RETRY_SECONDS = 90
_TRANSIENT = ("timed out", "Unable to contact", "onnection", "temporarily", "Zero Bytes")


@dataclass(frozen=True)
class SlurmJob:
    """A job as ``scontrol`` knows it.

    Attributes:
        number: of its own, for a task of an array too.
        restarts: how often it has been requeued.
        task: ``ARRAY_TASK`` for a task of an array, whose number may be that of the whole array; empty for others.
    """

    number: str
    restarts: int
    task: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "SlurmJob | None":
        """The job from SLURM's environment variables; None outside a job."""
        number = environment.get("SLURM_JOB_ID")
        return cls(number, int(environment.get("SLURM_RESTART_COUNT") or 0)) if number else None

    @property
    def id(self) -> str:
        """By which ``scontrol`` knows it and nothing else."""
        return self.task or self.number

    def facts(self) -> dict[str, str]:
        """The fields of ``scontrol show job``.

        Raises:
            ScontrolError: it fails.
        """
        for line in _scontrol("show", "job", "-o", self.number).splitlines():  # one for each task of an array
            facts = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if facts.get("JobId") == self.number:
                return facts
        raise ScontrolError(f"scontrol does not list job {self.number}")

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
    """Whether a job that was stopped is requeued.

    Attributes:
        job: the job to requeue; None if it is not requeued.
        message: one line for the job log; empty if there is nothing to report.
    """

    job: SlurmJob | None
    message: str = ""


def decide(number: int, environment: Mapping[str, str] = os.environ) -> Decision:
    """Decides whether a run that a signal stopped cleanly is requeued.

    SIGUSR1 is the scheduler's warning before the time limit or a preemption. SIGTERM alone also comes from ``scancel``
    and from ``scontrol requeue``; a job that is being preempted, or whose time is up, must be put back by hand, since
    one that ends within its grace time counts as done.
    """
    job = SlurmJob.of(environment)
    if job is None or number == signal.SIGINT:
        return Decision(None)
    again = "submit it again to resume from the last checkpoint"
    try:
        facts = job.facts()
        # Not by SLURM's variables, which a job that was submitted from within another one's inherits.
        if "ArrayTaskId" in facts:
            job = replace(job, task=f"{facts['ArrayJobId']}_{facts['ArrayTaskId']}")
        most = _most_requeues(environment)
    except (ScontrolError, ValueError) as error:
        return Decision(None, f"job {job.id} is not requeued: {error}; {again}")
    preempted = facts.get("PreemptTime", "None") not in ("None", "Unknown", "N/A")
    out_of_time = facts.get("Reason") == "TimeLimit"
    warned = number == signal.SIGUSR1 and facts.get("JobState") == "RUNNING"
    if not (preempted or out_of_time or warned):
        return Decision(None)  # somebody else decides
    if facts.get("BatchFlag") == "0":
        return Decision(None, f"job {job.id} is interactive, which SLURM does not requeue; rerun the command to resume")
    if place := environment.get(_CHAIN):
        own, _, last = place.partition("/")
        what = f"it was the last of its chain; {again}" if own == last else "the next job of its chain resumes"
        return Decision(None, f"job {job.id} is not requeued: {what}")
    if job.restarts >= most:
        message = f"job {job.id} is not requeued: it was requeued {job.restarts} times, and {_CAP} is {most}; {again}"
        return Decision(None, message)
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
    return decision.message


def _most_requeues(environment: Mapping[str, str]) -> int:
    given = environment.get(_CAP) or str(_MAX_REQUEUES)
    if not given.isdecimal():
        raise ValueError(f"{_CAP} must be a number, got {given!r}")
    return int(given)


def _scontrol(*arguments: str) -> str:
    if shutil.which("scontrol") is None:
        raise ScontrolError("scontrol is not on PATH (in a container, bind it in)")
    deadline, pause = time.monotonic() + _RETRY_SECONDS, 1.0
    while True:
        try:
            return _ask_scontrol(*arguments)
        except ScontrolError as error:
            is_transient = any(words in str(error) for words in _TRANSIENT)
            if not is_transient or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 10.0)


def _ask_scontrol(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["scontrol", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScontrolError(f"scontrol does not respond ({error})") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ScontrolError(f"scontrol {arguments[0]} failed: {said[-1] if said else done.returncode}")
    return done.stdout
