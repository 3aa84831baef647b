"""``python -m bench.old_runs``: does a run that an earlier commit started end in its bits under the present code?

In a worktree of that commit, a small run with dropout is trained through, and another is killed half-way with SIGKILL.
The present code resumes the second under the present names of its keys. Weights must be equal to the bit, and every
line of ``metrics.jsonl`` but for times and memory; for one process, and for two under DDP and under FSDP.
About three minutes on 2 cores.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.results import REPOSITORY

_TESTS = REPOSITORY / "tests"
_TRIES = 5


@dataclass(frozen=True)
class Checkout:
    """A checkout of the project that trains with this interpreter's packages."""

    root: Path

    def start(self, *arguments: str, folder: Path) -> subprocess.Popen[bytes]:
        """Python in ``folder``, in a process group of its own; what it prints goes to ``folder / 'log'``."""
        environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "true"}
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env={**os.environ, **environment, "PYTHONPATH": str(self.root / "src")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, *arguments: str, folder: Path) -> None:
        """As ``start``, to the end.

        Raises:
            RuntimeError: it failed; with the end of what it printed.
        """
        if code := self.start(*arguments, folder=folder).wait():
            raise RuntimeError(f"exit code {code}: {_printed(folder)}")

    @property
    def train_py(self) -> str:
        return str(self.root / "train.py")


@contextmanager
def worktree(commit: str) -> Iterator[Checkout]:
    """A temporary checkout of a commit of this repository."""
    with tempfile.TemporaryDirectory(prefix="galpaca-old-runs-") as name:
        root = Path(name) / "galpaca"
        _git("worktree", "add", "--detach", str(root), commit)
        try:
            yield Checkout(root)
        finally:
            _git("worktree", "remove", "--force", str(root))


def kill_half_way(code: Checkout, folder: Path, overrides: Sequence[str], run: Path, half: int) -> int:
    """Trains until the checkpoint of step ``half`` is whole and later steps are done, then kills all processes.

    Returns:
        The last step in its metrics.

    Raises:
        RuntimeError: it ended before it could be killed, each time.
    """
    checkpoint, metrics = run / "checkpoints" / f"step-{half:08d}", run / "metrics.jsonl"
    for _ in range(_TRIES):
        shutil.rmtree(run, ignore_errors=True)
        process = code.start(code.train_py, *overrides, folder=folder)
        while process.poll() is None and not (checkpoint.is_dir() and num_steps(metrics) > half + 2):
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not (run / "model").is_dir():
                return num_steps(metrics)
    raise RuntimeError(f"ended before it could be killed: {_printed(folder)}")


def num_steps(metrics: Path) -> int:
    return metrics.read_bytes().count(b'"grad_norm"') if metrics.is_file() else 0


def _printed(folder: Path) -> str:
    return (folder / "log").read_text(encoding="utf-8")[-2000:]


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=REPOSITORY, check=True, capture_output=True)
