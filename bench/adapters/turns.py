"""One training, in an interpreter of its own, whose peak of memory is the figure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.adapters.workload import EXAMPLES_PER_STEP, LONGEST_EXAMPLE_TOKENS, PEFT, TUNINGS, Workload, learning_rate
from bench.peers.outcome import Outcome, load_outcome, outcome_of_run
from bench.results import REPOSITORY
from galpaca.errors import GalpacaError

THREADS = 1
_LOG_TAIL_LINES = 25


@dataclass(frozen=True)
class Turn:
    """One training.

    Attributes:
        outcome: figures of its steps.
        peak_bytes: largest resident size of its process, imports and the writing of the model included.
    """

    outcome: Outcome
    peak_bytes: int


def make_base(folder: Path, num_epochs: int | None) -> None:
    """Trains the demo, by its recipe; one that is there is kept.

    Args:
        num_epochs: fewer than the recipe's, for tests.
    """
    shortened = [] if num_epochs is None else [f"trainer.max_epochs={num_epochs}"]
    overrides = ["+experiment=demo", f"run.root={folder}", "run.name=base", *shortened]
    run_measured([sys.executable, "train.py", *overrides], folder / "base.log")


def take_turn(method: str, seed: int, workload: Workload) -> Turn:
    """Tunes the base in one of the ways.

    Raises:
        GalpacaError: it failed, or did not take the steps that were requested.
    """
    folder = workload.tuned(method, seed)
    shutil.rmtree(folder, ignore_errors=True)  # a run that is complete would not train again
    log = workload.path / f"{folder.name}.log"
    if method == PEFT:
        contender = ["-m", "bench.adapters.contender", "--workdir", workload.folder, "--seed", str(seed)]
        peak = run_measured([sys.executable, *contender], log)
        outcome = load_outcome(folder / "outcome.json")
    else:
        peak = run_measured([sys.executable, "train.py", *overrides(method, seed, workload)], log)
        outcome = outcome_of_run(folder / "metrics.jsonl")
    if outcome.step_examples != [EXAMPLES_PER_STEP] * workload.num_steps:
        raise GalpacaError(f"other steps than {workload.num_steps} of {EXAMPLES_PER_STEP} examples", where=folder.name)
    return Turn(outcome, peak)


def overrides(method: str, seed: int, workload: Workload) -> list[str]:
    """galpaca's command line for a way of tuning."""
    return [
        "model=tiny",
        f"model.path={workload.base}",
        "data=local",
        f"data.path={workload.path / 'tuned.json'}",
        f"data.max_length={LONGEST_EXAMPLE_TOKENS}",
        f"batch.examples={EXAMPLES_PER_STEP}",
        f"tuning={TUNINGS[method]}",
        f"optim.lr={learning_rate(method)}",
        f"trainer.max_epochs={workload.num_epochs}",
        f"checkpoint.every_steps={workload.num_steps}",  # the peer writes none on the way either
        "precision=32-true",
        "trainer=cpu",
        "strategy=single",
        "logger=local",
        f"seed={seed}",
        f"run.root={workload.folder}",
        f"run.name={workload.tuned(method, seed).name}",
    ]


def run_measured(command: list[str], log: Path) -> int:
    """Runs a command to its end.

    Returns:
        The largest resident size of its process, in bytes. A process inherits what its parent has reached, so that
        nothing large may be imported here before.

    Raises:
        GalpacaError: it failed; with the end of its log.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(THREADS),
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_OFFLINE": "1",  # models and records are local
    }
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=out, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-_LOG_TAIL_LINES:])
        raise GalpacaError(f"training ended with exit code {process.returncode}", where=log.stem, why=tail)
    return used.ru_maxrss * 1024
