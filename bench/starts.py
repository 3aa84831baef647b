"""``python -m bench.starts``: starts on two ranks, signalled at random moments before the first step.

With Lightning's launcher, with torchrun and as jobs of a real SLURM, each of the five signals, to one rank or to all.
After 15 seconds no process may be left, the exit code must be a documented one, nothing may be half-written, and the
same command (or the job, requeued or submitted again) must then run to its end. Half an hour on 2 cores for 30 of them
without SLURM and 30 with it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from bench import starts_slurm
from bench.results import REPOSITORY, RESULTS, save
from bench.start_outcome import LEFT_SECONDS, Outcome, partial_files

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2)
_LIMIT_SECONDS = 120.0
_OVERRIDES = (
    *("+experiment=demo", "model.hidden_size=32", "model.num_heads=4", "model.ffn_size=64", "strategy=ddp"),
    *("trainer.devices=2", "trainer.max_steps=4", "samples.prompts=null", "checkpoint.every_steps=2"),
)
_LAUNCHERS = {
    "lightning": (sys.executable, "train.py"),
    "torchrun": (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "train.py"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.starts", description=__doc__)
    parser.add_argument("--starts", type=int, default=30, help="(%(default)s)")
    parser.add_argument("--under-slurm", type=int, default=30, metavar="N", help="as many as jobs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="true")
    rng = random.Random(given.seed)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="galpaca-starts-") as name:
        root = Path(name)
        until_step = {launcher: _seconds_until_step(launcher, root) for launcher in _LAUNCHERS}
        print(f"seconds from the command to the first step: {until_step}", flush=True)
        for number in range(given.starts):
            launcher = list(_LAUNCHERS)[number % 2]
            one = _start(
                launcher, root / f"runs-{number}", SIGNALS[number % 5], rng, rng.uniform(0.05, until_step[launcher])
            )
            outcomes.append(_shown(number, one))
    not_done = ""
    try:
        if given.under_slurm:
            outcomes += _under_slurm(given.under_slurm, rng)
    except starts_slurm.NoSlurmError as error:
        not_done = f"{given.under_slurm} under SLURM: {error}"
        print(f"not done: {not_done}", flush=True)
    failed = [one for one in outcomes if one.wrong]
    print(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} starts ended as documented and ran to their end afterwards"
    )
    figures = {"starts": [asdict(one) for one in outcomes], "not_done": not_done}
    print(f"written: {save('starts', figures, given.out)}")
    return 1 if failed else 0


def _under_slurm(number_of_starts: int, rng: random.Random) -> list[Outcome]:
    with starts_slurm.a_desk() as desk:
        most = starts_slurm.seconds_until_step(desk)
        print(f"seconds from the first task to the first step under SLURM: {most}", flush=True)
        return [
            _shown(number, starts_slurm.start(desk, f"run-{number}", SIGNALS[number % 5], rng, rng.uniform(0.0, most)))
            for number in range(number_of_starts)
        ]


def _shown(number: int, one: Outcome) -> Outcome:
    print(f"{number + 1:>4}  {'  '.join(str(value) for value in asdict(one).values())}", flush=True)
    return one


def _command(launcher: str, root: Path) -> list[str]:
    return [*_LAUNCHERS[launcher], *_OVERRIDES, f"run.root={root}"]


def _launch(launcher: str, root: Path) -> subprocess.Popen[bytes]:
    root.mkdir(exist_ok=True)
    with (root / "output").open("ab") as output:
        return subprocess.Popen(
            _command(launcher, root), cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True
        )


def _seconds_until_step(launcher: str, root: Path) -> float:
    process, begin = _launch(launcher, root / launcher), time.monotonic()
    metrics = root / launcher / "demo" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    seconds = time.monotonic() - begin
    if process.wait(_LIMIT_SECONDS):
        raise RuntimeError((root / launcher / "output").read_text(encoding="utf-8"))
    return round(seconds, 2)


def _start(launcher: str, root: Path, number: signal.Signals, rng: random.Random, seconds: float) -> Outcome:
    _known.clear()
    process = _launch(launcher, root)
    time.sleep(seconds)
    ranks = _ranks(process.pid) or [process.pid]
    to = rng.choice(["all", "one"])
    for pid in _group(process.pid) if to == "all" else [rng.choice(ranks)]:
        _kill(pid, number)
    deadline = time.monotonic() + LEFT_SECONDS
    while _group(process.pid) and time.monotonic() < deadline:
        process.poll()
        time.sleep(0.05)
    left = _group(process.pid)
    for pid in left:
        _kill(pid, signal.SIGKILL)
    code = process.wait()
    partial = partial_files(root)
    again = subprocess.run(
        _command(launcher, root), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode
    said = (root / "output").read_text(encoding="utf-8", errors="replace")
    wrong = [
        *(["processes are left"] if left else []),
        *([f"exit code {code}"] if code not in _documented(launcher, number, completed="\ndone\n" in said) else []),
        *(["half-written files"] if partial else []),
        *([f"the same command ended with {again}"] if again else []),
        *(
            ["a stack trace"]
            if launcher == "lightning" and "Traceback" in said and "KeyboardInterrupt" not in said
            else []
        ),
    ]
    return Outcome(launcher, number.name, to, round(seconds, 2), code, len(left), len(partial), again, "; ".join(wrong))


def _documented(launcher: str, number: int, *, completed: bool) -> set[int]:
    """Ours, and what a signal does to any process that has not read its program yet, or to torchrun itself."""
    ours = {143, -number, 128 + number}
    return ours | ({1, 0} if launcher == "torchrun" or completed else set())


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _group(session: int) -> list[int]:
    """Processes of a session that are alive, and those below them: torchrun's ranks have sessions of their own."""
    alive = [one for one in _processes() if one.state not in ("Z", "X")]
    found = {one.pid for one in alive if one.session == session or one.pid in _known}
    while more := {one.pid for one in alive if one.parent in found} - found:
        found |= more
    _known.update(found)
    return sorted(found)


def _ranks(session: int) -> list[int]:
    """Those of them that are ranks, not torchrun."""
    return [pid for pid in _group(session) if b"train.py" in _line(pid) and b"distributed.run" not in _line(pid)]


def _line(pid: int) -> bytes:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


# Those that were seen below a launcher: when it is gone, nothing else shows that they were its own.
_known: set[int] = set()


class Process(NamedTuple):
    """One of the machine."""

    pid: int
    parent: int
    session: int
    state: str


def _processes() -> Sequence[Process]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        found.append(Process(int(entry.parent.name), int(fields[1]), int(fields[3]), fields[0]))
    return found


if __name__ == "__main__":
    sys.exit(main())
