"""``train.py`` as jobs of a SLURM: submitted, watched, disturbed, compared with a run that never was."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGUSR1, Signals
from typing import Any

from conftest import Started, command, completed, read_jsonl
from faults.kills import assert_equal_runs, whole_lines

from cluster.slurm import Slurm

OVERRIDES = ("strategy=fsdp", "model.dropout=0.3", "trainer.max_epochs=100")
# A shell's and sbatch's word for the number of a task of an array.
_TASK = "$SLURM_ARRAY_TASK_ID"
# Of logs: several desks may share a folder.
_NUMBERS = itertools.count(1)
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@dataclass(frozen=True)
class Layout:
    """Which processes a job has.

    Attributes:
        nodes: how many.
        tasks: on each of them.
    """

    nodes: int = 1
    tasks: int = 2

    @property
    def ranks(self) -> int:
        return self.nodes * self.tasks


class Desk:
    """Submits jobs whose runs share a folder, records and a tokenizer.

    Args:
        folder: for runs, scripts and logs.
        python: of the jobs.
    """

    def __init__(
        self, slurm: Slurm, folder: Path, tokenizer: Path, records: Path, python: str = sys.executable
    ) -> None:
        self.slurm, self.folder, self.tokenizer, self.records, self.python = slurm, folder, tokenizer, records, python

    def submit(
        self,
        name: str,
        *overrides: str,
        layout: Layout = Layout(),
        directives: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
        requested: Layout | None = None,
    ) -> Job:
        """A job that trains.

        Args:
            name: of its run.
            layout: of the job.
            directives: further options of sbatch.
            environment: of the job on top of this one's; an empty value takes a variable away.
            before: lines of the script before it starts.
            requested: what the run sees; by default what the job has.
        """
        given = requested or layout
        _, *words = command(
            self.folder,
            self.tokenizer,
            self.records,
            f"run.name={name}",
            f"trainer.devices={given.tasks}",
            f"trainer.num_nodes={given.nodes}",
            *OVERRIDES,
            *overrides,
        )
        quoted = (f'"{word}"' for word in (self.python, *words))
        log = self.folder / f"{name.replace(_TASK, '%a')}.{next(_NUMBERS)}.log"
        directives = (
            f"--nodes={layout.nodes} --ntasks-per-node={layout.tasks}",
            f"--requeue --open-mode=append --signal=USR1@60 --output={log} --job-name=galpaca",
            *directives,
        )
        changed = dict(environment or {})
        if self.slurm.kind.network != "two hosts":
            changed.setdefault("MASTER_ADDR", "127.0.0.1")
        lines = [
            "#!/bin/bash",
            *(f"#SBATCH {directive}" for directive in directives),
            *(f"export {key}='{value}'" if value else f"unset {key}" for key, value in changed.items()),
            *before,
            # By its path, for jobs without SLURM on theirs.
            " ".join([f"{self.slurm.prefix}/usr/bin/srun --wait=0 --kill-on-bad-exit=1", *quoted]),
        ]
        script = log.with_suffix(".sh")
        script.write_text("\n".join(lines) + "\n", encoding="utf-8")
        job = self.slurm.run("sbatch", "--parsable", str(script), cwd=self.folder).strip()
        return Job(self.slurm, job, self.folder / "runs" / name, log)

    def submit_array(self, name: str, *overrides: str, **how: Any) -> list[Job]:
        """Two jobs of one array, each with a run of its own."""
        array = self.submit(f"{name}-{_TASK}", *overrides, directives=("--array=0-1",), **how)
        return [
            Job(self.slurm, f"{array.id}_{task}", array.run.with_name(f"{name}-{task}"), _of_task(array.log, task))
            for task in range(2)
        ]

    def straight(self, server: str, *overrides: str, ranks: int = 2) -> Path:
        """A run that is never disturbed, outside SLURM."""
        line = command(
            self.folder,
            self.tokenizer,
            self.records,
            "run.name=straight",
            f"trainer.devices={ranks}",
            *OVERRIDES,
            *overrides,
        )
        done = completed(Started(server, line, self.folder))
        assert done.returncode == 0, done.stderr
        return self.folder / "runs" / "straight"

    def preempt(self, *jobs: Job) -> None:
        """Has a job of more priority take these jobs' nodes, for a moment."""
        urgent = ("--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
        nodes = ",".join({self.slurm.facts(job.id)["NodeList"] for job in jobs})
        self.slurm.run("sbatch", "--parsable", f"--nodelist={nodes}", *urgent, cwd=self.folder)


@dataclass(frozen=True)
class Job:
    """A job, and the run that it works on."""

    slurm: Slurm
    id: str
    run: Path
    log: Path

    def step(self) -> int:
        """The last one in its figures."""
        steps = [int(str(line["step"])) for line in whole_lines(self.run / "metrics.jsonl")]
        return max(steps, default=0)

    def saved(self) -> int:
        """The step of its last checkpoint; 0 where there is none."""
        checkpoints = (self.run / "checkpoints").glob("step-*")
        return max((int(path.name.removeprefix("step-")) for path in checkpoints if path.name[5:].isdigit()), default=0)

    def wait_for_step(self, step: int, seconds: float = 300) -> None:
        self.wait_until(lambda: self.step() >= step, f"step {step}", seconds)

    def wait_for_restart(self, number: int, seconds: float = 300) -> None:
        """Until it has come back so many times, and its first process runs."""
        self.wait_until(lambda: len(self.pids(number)) > 0, f"restart {number}", seconds)

    def wait_until_away(self, restarts: int, seconds: float = 300) -> None:
        """Until it is requeued for the so manieth time, and all its processes of before have ended.

        SLURM keeps it waiting for some seconds then, in which its folder stays as it is.
        """
        gone = f"the end before restart {restarts}"
        self.wait_until(lambda: not self.pids(restarts - 1) and self.restarts() == restarts, gone, seconds)

    def wait_for_handlers(self, restarts: int, ranks: int = 2, seconds: float = 300) -> None:
        """Until all ranks of its so manieth coming back take signals; before, Python itself is starting."""

        def stand() -> bool:
            pids = self.pids(restarts)
            return len(pids) == ranks and all(_catches(pid, SIGUSR1) for pid in pids.values())

        self.wait_until(stand, f"the handlers of restart {restarts}", seconds)

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        deadline, next_look = time.monotonic() + seconds, 0.0
        while not holds():
            assert time.monotonic() < deadline, f"{what} did not come: {self.slurm.facts(self.id)}\n{self.output()}"
            if time.monotonic() > next_look:  # now and then: scontrol costs more than a step of the run
                assert self.state() not in ENDED or holds(), f"ended before {what}: {self.output()}"
                next_look = time.monotonic() + 1.0
            time.sleep(0.1)  # a look at all processes takes milliseconds

    def finish(self, state: str = "COMPLETED", seconds: float = 300) -> dict[str, str]:
        """Waits until it is done and returns what SLURM tells of it."""
        facts = self.slurm.wait(self.id, *ENDED, seconds=seconds)
        assert facts["JobState"] == state, f"{facts}\n{self.output()}"
        return facts

    def state(self) -> str:
        return self.slurm.state(self.id)

    def restarts(self) -> int:
        return int(self.slurm.facts(self.id).get("Restarts", 0))

    def output(self) -> str:
        """Its log."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def error(self, exit_code: int) -> str:
        """The one line in which it says what is wrong."""
        assert self.slurm.facts(self.id)["ExitCode"] == f"{exit_code}:0", self.output()
        errors = [line for line in self.output().splitlines() if line.startswith("error")]
        assert len(errors) == 1, self.output()
        assert "Traceback" not in self.output()
        return errors[0]

    def signal(self, number: Signals) -> None:
        """To the job's tasks, by SLURM."""
        self.slurm.run("scancel", f"--signal={number.name.removeprefix('SIG')}", self.id)

    def signal_rank(self, rank: int, number: Signals) -> None:
        """To one rank's process alone."""
        os.kill(self.pids()[rank], number)

    def pids(self, restarts: int | None = None) -> dict[int, int]:
        """The process of each rank that runs: the one that SLURM started, not those that it started itself.

        Args:
            restarts: only those from when it had come back so many times.
        """
        found = {}
        for entry in Path("/proc").iterdir():
            variables = _environment(entry)
            if self.id not in _names(variables) or "SLURM_PROCID" not in variables:
                continue
            if restarts not in (None, int(variables.get("SLURM_RESTART_COUNT", 0))):
                continue
            if _is_task(entry):
                found[int(variables["SLURM_PROCID"])] = int(entry.name)
        return found

    def starts(self) -> list[dict[str, object]]:
        """What the run's record tells of each start."""
        return json.loads((self.run / "run.json").read_text(encoding="utf-8"))["starts"]

    def assert_every_step_once(self, num_steps: int) -> None:
        steps = [line["step"] for line in read_jsonl(self.run / "metrics.jsonl")]
        assert steps == list(range(1, num_steps + 1))

    def assert_equals(self, other: Path) -> None:
        assert_equal_runs(other, self.run)


def _of_task(log: Path, task: int) -> Path:
    return log.with_name(log.name.replace("%a", str(task)))


def _environment(process: Path) -> dict[str, str]:
    if not process.name.isdigit():
        return {}
    try:
        text = (process / "environ").read_text(errors="replace")
    except OSError:  # gone, or somebody else's
        return {}
    return dict(entry.partition("=")[::2] for entry in text.split("\0"))


def _names(variables: Mapping[str, str]) -> tuple[str | None, str]:
    """Of a process's job: its number, and that in an array."""
    array, task = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    return variables.get("SLURM_JOB_ID"), f"{array}_{task}"


def _catches(pid: int, number: Signals) -> bool:
    """Whether a process has a handler for a signal."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (number - 1) & 1)


def _is_task(process: Path) -> bool:
    try:
        words = (process / "cmdline").read_text(errors="replace").split("\0")
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        above = (Path("/proc") / parent / "comm").read_text()
    except OSError:
        return False
    return words[:1] == [sys.executable] and above.startswith("slurmstepd")
