"""One contender's turn, in an interpreter of its own so that none inherits another's state."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from bench.peers.outcome import Outcome, load_outcome, outcome_of_run
from bench.peers.workload import SEED, Workload
from bench.results import REPOSITORY
from galpaca.errors import GalpacaError, InputError

CONTENDERS = ("galpaca", "trainer", "trainer_padded", "trl", "trl_packed")
_LOG_TAIL_LINES = 25


def check_installed(names: list[str]) -> None:
    """Raises:
    InputError: a contender's package is not there.
    """
    missing = [name for name in names if name.startswith("trl")]
    if missing and find_spec("trl") is None:
        raise InputError(
            "TRL is not installed",
            where="trl",
            why=f"it trains {' and '.join(missing)}; it is no part of galpaca's own needs",
            fix="pip install -c constraints.txt -e '.[bench]', or --only galpaca,trainer,trainer_padded",
        )


def take_turn(name: str, workload: Workload) -> Outcome:
    """Trains as one contender does.

    Raises:
        GalpacaError: it failed, or did not take the steps it was requested.
    """
    if name == "galpaca":
        # The second repeat would otherwise find a run that is done; the cache of encoded data goes too.
        shutil.rmtree(workload.path / "runs", ignore_errors=True)
        _run([sys.executable, "train.py", *_overrides(workload)], name)
        outcome = outcome_of_run(workload.path / "runs" / "galpaca" / "metrics.jsonl")
    else:
        _run([sys.executable, "-m", "bench.peers.contender", name, "--workdir", workload.folder], name)
        outcome = load_outcome(workload.path / f"{name}.json")
    if not len(outcome.losses) == len(outcome.step_seconds) == workload.num_steps:
        raise GalpacaError(f"{len(outcome.losses)} steps were taken, not {workload.num_steps}", where=name)
    return outcome


def threads() -> str:
    """Threads of every contender: one for each core that this process may use, unless the environment says so."""
    return os.environ.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0)))


def _overrides(workload: Workload) -> list[str]:
    steps_per_epoch = workload.num_records // workload.step_examples
    return [
        "model=tiny",
        f"model.path={workload.path / 'model'}",
        *([f"model.tokenizer={workload.tokenizer}"] if workload.tokenizer is not None else []),
        "model.dropout=0.0",
        "model.attention_dropout=0.0",
        "data=local",
        f"data.path={workload.path / 'records.json'}",
        f"data.template={workload.template}",
        f"data.max_length={workload.shape.positions}",
        f"batch.examples={workload.step_examples}",
        f"optim.lr={workload.lr}",
        f"batch.max_tokens={workload.max_tokens}",
        "trainer=cpu",
        f"trainer.max_steps={workload.num_steps}",
        f"trainer.max_epochs={-(-workload.num_steps // steps_per_epoch)}",
        "strategy=single",
        "precision=32-true",
        "logger=local",
        f"seed={SEED}",
        f"run.root={workload.path / 'runs'}",
        "run.name=galpaca",
    ]


def _run(command: list[str], name: str) -> None:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads(),
        "HF_HUB_OFFLINE": "1",  # models and records are local, and telemetry would only add noise
    }
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-_LOG_TAIL_LINES:])
        raise GalpacaError(f"training ended with exit code {done.returncode}", where=name, why=tail)


def remove_trace(workload: Workload, name: str) -> None:
    """Removes a peer's outcome, so that one left by an earlier repeat is never read for a later one."""
    Path(workload.path / f"{name}.json").unlink(missing_ok=True)
