"""The real model killed at random moments, and started again: does it end in the bits of a run that was not?"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.results import REPOSITORY
from bench.smollm.commands import environment, run, train_overrides
from bench.smollm.phase import Found, Phase
from bench.smollm.plan import FULL, Plan
from galpaca.errors import GalpacaError
from galpaca.files.checksums import file_facts
from galpaca.runs.folder import RunFolder
from galpaca.runs.lines import StepLine
from galpaca.runs.metrics import read_metrics

_STEPS, _EVERY = 6, 2
# Seeds the moments.
_SEED = 16
# Of a moment, where the run was faster than the one that was not killed, and had ended before.
_MOST_DRAWS = 5


def kills_phase(plan: Plan) -> Phase:
    """As many runs as the plan says, each killed once between its first step and its end."""
    changes = (
        f"trainer.max_steps={_STEPS}",
        f"checkpoint.every_steps={_EVERY}",
        "checkpoint.keep_last=1",
        "batch.examples=4",
        f"run.root={plan.root / 'killed'}",
    )
    overrides = [*train_overrides(FULL, plan), *changes]

    def killed(_: dict[str, Found]) -> Found:
        straight = RunFolder(plan.root / "killed", "straight")
        shutil.rmtree(straight.root, ignore_errors=True)
        line = [sys.executable, "train.py", *overrides]
        run([*line, "run.name=straight"], "the run that is not killed")
        expected, seconds = _bits(straight), _seconds_after_first_step(straight)
        moments = random.Random(_SEED)
        rows = []
        for number in range(plan.sizes.kills):
            folder = RunFolder(straight.root, f"killed-{number}")
            name = f"run.name={folder.name}"
            reached = kill([*line, name], folder, moments, seconds)
            saved = folder.last_saved_step()
            run([*line, name], f"the run that was killed after step {reached}")
            rows.append({"killed_after_step": reached, "resumed_from": saved, "same_bits": _bits(folder) == expected})
            shutil.rmtree(folder.path)
        shutil.rmtree(straight.root)
        return {"runs": rows, "steps": _STEPS, "checkpoint_every_steps": _EVERY}

    return Phase("kills", ("model", "records"), [overrides[len(overrides) - len(changes) :], plan.sizes.kills], killed)


def _bits(folder: RunFolder) -> list[object]:
    """What must be equal: the released weights, and the loss of every step."""
    losses: list[object] = [line.loss for line in read_metrics(folder.metrics) if isinstance(line, StepLine)]
    return [file_facts(folder.model / "model.safetensors").sha256, *losses]


def _seconds_after_first_step(folder: RunFolder) -> float:
    steps = [line for line in read_metrics(folder.metrics) if isinstance(line, StepLine)]
    return sum(line.step_seconds or 0.0 for line in steps[1:])


def kill(line: Sequence[str], folder: RunFolder, moments: random.Random, most_seconds: float) -> int:
    """Kills a run at a random moment after its first step; returns the last step in its metrics.

    One that ends before is started again, with another moment.

    Raises:
        GalpacaError: it failed, or ended before every moment that was drawn.
    """
    for _ in range(_MOST_DRAWS):
        if _is_killed(line, folder.metrics, moments.uniform(0.0, most_seconds)):
            return max(step.step for step in read_metrics(folder.metrics) if isinstance(step, StepLine))
        shutil.rmtree(folder.path)
    raise GalpacaError(f"the run to be killed ended before, {_MOST_DRAWS} times", fix="try again on a quiet machine")


def _is_killed(line: Sequence[str], metrics: Path, seconds: float) -> bool:
    """Whether the run was still there some time after its first step, when it was killed.

    Raises:
        GalpacaError: it failed.
    """
    process = subprocess.Popen(line, cwd=REPOSITORY, env=environment(), start_new_session=True)
    try:
        _wait_for_steps(process, metrics)
        time.sleep(seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    if code not in (0, -signal.SIGKILL):
        raise GalpacaError(f"the run to be killed ended with exit code {code}", fix="see above")
    return code != 0


def _wait_for_steps(process: subprocess.Popen[bytes], metrics: Path) -> None:
    while not (metrics.is_file() and metrics.stat().st_size):
        if process.poll() is not None:
            raise GalpacaError(f"the run to be killed ended with exit code {process.returncode}", fix="see above")
        time.sleep(0.05)
