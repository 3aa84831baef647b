"""Whether a job comes back, by what ``scontrol`` answers; real jobs are in tests/cluster."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from galpaca.app.cluster.slurm import decide

Answers = Callable[..., Path]

JOB = "JobId=7 JobName=x JobState={state} Reason={reason} PreemptTime={preempted} BatchFlag=1"
ENVIRONMENT = {"SLURM_JOB_ID": "7"}


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Puts a ``scontrol`` on the path that fails as often as set, and then answers. Returns its log."""

    def put(text: str, failures: int = 0, says: str = "") -> Path:
        program, log = tmp_path / "scontrol", tmp_path / "log"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {log}\n'
            f"if [ $(wc -l < {log}) -le {failures} ]; then echo '{says}' >&2; exit 1; fi\n"
            f"printf '%s\\n' '{text}'\n"
        )
        program.chmod(0o755)
        return log

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return put


def of(state: str = "RUNNING", reason: str = "None", preempted: str = "None") -> str:
    return JOB.format(state=state, reason=reason, preempted=preempted)


@pytest.mark.parametrize(
    ("number", "answer", "comes_back"),
    [
        (signal.SIGUSR1, of(), True),
        (signal.SIGTERM, of(), False),  # scancel, or scontrol requeue
        (signal.SIGTERM, of(preempted="2026-01-01T00:00:00"), True),
        (signal.SIGUSR1, of("COMPLETING"), False),  # somebody has cancelled it meanwhile
        (signal.SIGUSR1, of("COMPLETING", "TimeLimit"), True),  # warned, and saved when the time was up already
        (signal.SIGTERM, of("COMPLETING", "TimeLimit"), True),
        (signal.SIGINT, of(), False),
    ],
)
def test_what_comes_back(answers: Answers, number: int, answer: str, comes_back: bool) -> None:
    """A job that was warned, but had saved only after its time limit, stayed away without a word."""
    answers(answer)
    assert (decide(number, ENVIRONMENT).job is not None) == comes_back


def test_a_task_of_an_array_is_named_by_scontrol_and_not_by_inherited_variables(answers: Answers) -> None:
    """A job that was submitted from within a task of an array requeued that task."""
    inherited = {**ENVIRONMENT, "SLURM_ARRAY_JOB_ID": "3", "SLURM_ARRAY_TASK_ID": "1"}
    answers(of())
    found = decide(signal.SIGUSR1, inherited).job
    assert found is not None
    assert found.id == "7"
    first = of().replace("JobId=7", "JobId=8 ArrayJobId=7 ArrayTaskId=1")
    answers(first + "\n" + of().replace("JobId=7", "JobId=7 ArrayJobId=7 ArrayTaskId=2"))
    found = decide(signal.SIGUSR1, ENVIRONMENT).job
    assert found is not None
    assert found.id == "7_2"


@pytest.mark.parametrize(
    ("says", "comes_back"),
    [
        ("slurm_load_jobs error: Socket timed out on send/recv operation", True),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", True),
        ("slurm_load_jobs error: Invalid job id specified", False),
    ],
)
def test_a_busy_controller_is_tried_again(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, says: str, comes_back: bool
) -> None:
    """One unanswered question, when many jobs reach their limit together, and the job did not come back."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    log = answers(of(), failures=2, says=says)
    decision = decide(signal.SIGUSR1, ENVIRONMENT)
    assert (decision.job is not None) == comes_back
    assert len(log.read_text().splitlines()) == (3 if comes_back else 1)
    assert comes_back or "Invalid job id" in decision.message
