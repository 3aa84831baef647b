"""``python -m bench.old_runs``: does a run that an earlier commit started end in its bits under the present code?

In a worktree of that commit, a small run with dropout is trained through, and another is killed half-way with SIGKILL.
The present code resumes the second under the present names of its keys. Weights must be equal to the bit, and every
line of ``metrics.jsonl`` but for times and memory; for one process, and for two under DDP and under FSDP.
Some minutes.
"""

from __future__ import annotations

import argparse
import json
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

from bench.results import REPOSITORY, RESULTS, save

_TESTS = REPOSITORY / "tests"
_TRIES = 5


def main() -> int:
    sys.path.insert(0, str(_TESTS))
    from old_runs.small_run import COMMIT, STRATEGIES

    parser = argparse.ArgumentParser(prog="python -m bench.old_runs", description=__doc__)
    parser.add_argument("--commit", default=COMMIT, help="that starts the runs (%(default)s)")
    parser.add_argument("--only", default=",".join(STRATEGIES), help="strategies (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    given = parser.parse_args()
    started = time.perf_counter()
    rows: list[dict[str, object]] = []
    with worktree(given.commit) as then:
        for strategy in given.only.split(","):
            with tempfile.TemporaryDirectory(prefix="galpaca-old-runs-") as folder:
                rows.append({"strategy": strategy, **_resumed(then, Checkout(REPOSITORY), Path(folder), strategy)})
            print("  ".join(f"{key}: {value}" for key, value in rows[-1].items()), flush=True)
    failed = [row for row in rows if row["result"] != "equal"]
    minutes = round((time.perf_counter() - started) / 60, 1)
    figures = {"started_by": given.commit, "failed": failed, "minutes": minutes, "rows": rows}
    print(f"written: {save('old_runs', figures, given.out)}")
    return 1 if failed else 0


def _resumed(then: Checkout, present: Checkout, folder: Path, strategy: str) -> dict[str, object]:
    """Trains one run through, and another that is killed and resumed; what came of them."""
    from old_runs.small_run import HALF, STRATEGIES, THEN, lay_out, now

    overrides, straight, killed = (*THEN, *STRATEGIES[strategy]), folder / "runs/straight", folder / "runs/killed"
    lay_out(folder, then.tokenizer)
    then.run(then.train_py, *overrides, "run.name=straight", folder=folder)
    reached = kill_half_way(then, folder, [*overrides, "run.name=killed"], killed, HALF)
    try:
        present.run(present.train_py, *now([*overrides, "run.name=killed"]), folder=folder)
    except RuntimeError as error:
        return {"killed_after_step": reached, "result": f"cannot be resumed: {error}"}
    starts = json.loads((killed / "run.json").read_text(encoding="utf-8"))["starts"]
    return {
        "commits": [start["git"]["commit"][:12] for start in starts],
        "killed_after_step": reached,
        "resumed_after_step": starts[-1]["step"],
        "lines": len(_lines(killed)),
        "result": "; ".join(differences(straight, killed)) or "equal",
    }


def differences(straight: Path, resumed: Path) -> list[str]:
    """What differs between two run folders: weights, and the lines of ``metrics.jsonl`` in the keys of the first."""
    from faults.kills import OF_THE_MACHINE
    from safetensors.torch import load_file

    found = []
    weights, others = (load_file(run / "model" / "model.safetensors") for run in (straight, resumed))
    for name in sorted(weights.keys() | others.keys()):
        if name not in weights or name not in others or not weights[name].equal(others[name]):
            found.append(name)
    lines, other_lines = _lines(straight), _lines(resumed)
    if len(lines) != len(other_lines):
        found.append(f"{len(lines)} and {len(other_lines)} lines")
    for line, other in zip(lines, other_lines, strict=False):
        found += [
            f"step {line['step']}: {key} {value} and {other.get(key, 'nothing')}"
            for key, value in line.items()
            if not key.endswith(OF_THE_MACHINE) and value != other.get(key, "nothing")
        ]
    return found


def _lines(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


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

    @property
    def tokenizer(self) -> Path:
        return self.root / "src" / "galpaca" / "demo" / "tokenizer"


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


if __name__ == "__main__":
    sys.exit(main())
