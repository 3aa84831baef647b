"""The commands that the measurement types, as a user would, and what becomes of them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.results import REPOSITORY
from bench.smollm.plan import EXAMPLES_PER_STEP, MAX_LENGTH_TOKENS, MAX_TOKENS, Plan, Tuning, num_threads
from galpaca.errors import GalpacaError

LICENSE = "apache-2.0"
# Of the real records.
DATA_LICENSE = "cc-by-nc-4.0"
TEMPLATE = "chat_template"


def train_overrides(tuning: Tuning, plan: Plan) -> list[str]:
    """What follows ``python train.py``: the experiment for one's own records, once through, released as it ends."""
    return [
        "+experiment=own_records",
        f"model.path={plan.base}",
        f"model.license={LICENSE}",
        *_data_overrides(tuning, plan),
        f"data.template={TEMPLATE}",
        f"data.max_length={MAX_LENGTH_TOKENS}",
        "data.val_fraction=0",
        "data.test_fraction=0",
        f"batch.examples={EXAMPLES_PER_STEP}",
        f"batch.max_tokens={MAX_TOKENS}",
        f"tuning={tuning.method}",
        f"optim.lr={tuning.lr}",
        "trainer=cpu",
        "trainer.max_epochs=1",
        "precision=32-true",
        "compute.activation_checkpointing=none",
        "checkpoint.every_steps=1000",  # only the last one
        "checkpoint.keep_best=false",
        "release.checkpoint=last",
        "samples.prompts=null",
        f"seed={tuning.seed}",
        f"run.root={plan.runs}",
        f"run.name={tuning.name}",
    ]


def _data_overrides(tuning: Tuning, plan: Plan) -> list[str]:
    if not tuning.replays:
        return [f"data.path={plan.train_file}", f"data.license={DATA_LICENSE}"]
    return [
        f"data.mix.alpaca.path={plan.train_file}",
        f"data.mix.alpaca.license={DATA_LICENSE}",
        f"data.mix.own_answers.path={plan.replay_file}",
        f"data.mix.own_answers.license={LICENSE}",
    ]


def train(tuning: Tuning, plan: Plan) -> None:
    """Tunes from the start.

    Raises:
        GalpacaError: it failed.
    """
    shutil.rmtree(plan.run_of(tuning), ignore_errors=True)  # a run that is there would go on, or be complete
    run([sys.executable, "train.py", *train_overrides(tuning, plan)], f"the tuning {tuning.name}")


def galpaca(arguments: Sequence[str]) -> None:
    """Runs ``galpaca COMMAND ...``.

    Raises:
        GalpacaError: it failed.
    """
    run([sys.executable, "-m", "galpaca", *arguments], f"galpaca {arguments[0]}")


def run(command: Sequence[str], name: str) -> None:
    """Runs a command to its end, with its output where this process's goes.

    Raises:
        GalpacaError: it failed.
    """
    done = subprocess.run(command, cwd=REPOSITORY, env=environment())
    if done.returncode:
        raise GalpacaError(f"{name} ended with exit code {done.returncode}", fix=f"try it alone: {shlex.join(command)}")


def environment() -> dict[str, str]:
    """Of everything that is started."""
    return {**os.environ, "OMP_NUM_THREADS": str(num_threads()), "HF_HUB_OFFLINE": "1"}


def shown(words: Sequence[str], plan: Plan) -> str:
    """A command for the page, without this machine's paths."""
    text = shlex.join(["python" if word == sys.executable else word for word in words])
    return text.replace(str(plan.root), "ROOT").replace(str(Path(REPOSITORY)), ".")
