"""The starts of ``bench.starts`` as jobs of a real SLURM: two tasks, signalled through SLURM or one of them alone."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.results import REPOSITORY
from bench.start_outcome import LEFT_SECONDS, Outcome, partial_files

if TYPE_CHECKING:
    from cluster.jobs import Desk, Job

_OVERRIDES = ("strategy=ddp", "trainer.max_steps=4", "checkpoint.every_steps=2")
_END_SECONDS = 300.0


class NoSlurmError(Exception):
    """There can be no SLURM here."""


@contextmanager
def a_desk() -> Iterator[Desk]:
    """A SLURM of one node, fetched and started.

    Raises:
        NoSlurmError: there can be none here.
    """
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from cluster.jobs import Desk
    from cluster.places import UnavailableError
    from cluster.slurm import fetch, running

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galpaca-starts-slurm-")))
        try:
            fetch(folder / "packages")
        except UnavailableError as error:
            raise NoSlurmError(str(error)) from None
        records = json.loads((REPOSITORY / "src/galpaca/demo/records.json").read_text(encoding="utf-8"))[::12][:40]
        (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
        slurm = stack.enter_context(running(folder / "packages"))
        yield Desk(slurm, folder, REPOSITORY / "src/galpaca/demo/tokenizer", folder / "records.json")


def seconds_until_step(desk: Desk) -> float:
    """From the first task to the first step."""
    job = desk.submit("measured", *_OVERRIDES)
    _wait_for_task(job)
    begin = time.monotonic()
    job.wait_for_step(1)
    seconds = time.monotonic() - begin
    job.finish()
    return round(seconds, 2)


def start(desk: Desk, name: str, number: signal.Signals, rng: random.Random, seconds: float) -> Outcome:
    """One start.

    Args:
        name: of its run.
        seconds: after the first task, when the signal is sent.
    """
    job = desk.submit(name, *_OVERRIDES)
    _wait_for_task(job)
    time.sleep(seconds)
    before, to = job.pids(0), rng.choice(["all", "one"])
    if to == "all" or not before:
        job.signal(number)
    else:
        job.signal_rank(rng.choice(sorted(before)), number)
    deadline = time.monotonic() + LEFT_SECONDS
    while job.pids(0) and time.monotonic() < deadline:
        time.sleep(0.1)
    left, partial = job.pids(0), partial_files(job.run)
    facts = _settled(desk, job)
    came_back = int(facts.get("Restarts", 0)) > 0
    code = "requeued" if came_back else facts["ExitCode"]
    wrong = []
    if left:
        wrong.append("processes are left")
        wrong.append(job.output()[-1500:])
        with suppress(subprocess.CalledProcessError):  # it ended meanwhile
            desk.slurm.run("scancel", "--signal=KILL", job.id)
    if partial:
        wrong.append("half-written files")
    if not came_back and code not in _documented(number):
        wrong.append(f"exit code {code}")
    if "Traceback" in job.output() and "KeyboardInterrupt" not in job.output():
        wrong.append("a stack trace")
    again = _finished(desk, job, name, came_back=came_back, code=code)
    if again:
        wrong.append(f"the same job ended as {again}")
    return Outcome("slurm", number.name, to, round(seconds, 2), code, len(left), len(partial), again, "; ".join(wrong))


def _settled(desk: Desk, job: Job) -> dict[str, str]:
    """What SLURM says of a job that has ended or was requeued."""
    deadline = time.monotonic() + _END_SECONDS
    while True:
        facts = desk.slurm.facts(job.id)
        if facts["JobState"] in _ENDED or int(facts.get("Restarts", 0)) > 0:
            return facts
        if time.monotonic() > deadline:
            raise TimeoutError(f"job {job.id} neither ends nor comes back: {job.output()}")
        time.sleep(0.5)


_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def _documented(number: int) -> set[str]:
    """Ours; what a signal does to a task that has not read its program yet, and to the others that srun then ends."""
    plain = {number, signal.SIGTERM, signal.SIGKILL}
    return {"0:0", "143:0", *(f"0:{one}" for one in plain), *(f"{128 + one}:0" for one in plain)}


def _finished(desk: Desk, job: Job, name: str, *, came_back: bool, code: str) -> str:
    """The state of the job that came back, or of one submitted again; empty if it is complete."""
    if not came_back and code != "0:0":
        job = desk.submit(name, *_OVERRIDES)
    state = desk.slurm.wait(job.id, *_ENDED, seconds=_END_SECONDS)["JobState"]
    return "" if state == "COMPLETED" and (job.run / "model").is_dir() else state


def _wait_for_task(job: Job) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while not job.pids(0):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no task of job {job.id} came: {job.output()}")
        time.sleep(0.02)
