"""Runs that are killed and started again, beside one that never was."""

import json
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conftest import Started, command, completed, read_jsonl
from parity.flat_run import save_model
from safetensors.torch import load_file

STEPS, EVERY = 6, 2
OVERRIDES = (
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=100",
    "model.dropout=0.3",
    f"checkpoint.every_steps={EVERY}",
    # Validations at the steps of checkpoints: a kill between the two must not lose one.
    "data.val_fraction=0.2",
    f"trainer.val_every_steps={EVERY}",
    "checkpoint.keep_last=1",
)
STRATEGIES = {
    "single": ("strategy=single",),
    "ddp": ("strategy=ddp", "trainer.devices=2"),
    "fsdp": ("strategy=fsdp", "trainer.devices=2"),
    "fsdp2": ("strategy=fsdp2", "trainer.devices=2"),
}
# Other from run to run, whatever happens to it.
OF_THE_MACHINE = ("_per_second", "_seconds", "_bytes")


@dataclass(frozen=True)
class Outcome:
    """What became of a run that was killed once.

    Attributes:
        reached: last step in its metrics when it was killed.
        resumed_from: step from which it went on.
        finished_first: it was done before it could be killed.
    """

    reached: int
    resumed_from: int
    finished_first: bool


class Bench:
    """One strategy's runs, in one folder.

    Args:
        folder: for all runs.
        server: that forks them.
        strategy: one of ``STRATEGIES``.
        tuning: full, or one of adapters beside a small model that is made in the folder.
        asynchronous: whether training goes on while a checkpoint is written. What it does meanwhile may be lost on
            top of an interval, and never another interval, since the next checkpoint waits for the one before.
    """

    def __init__(
        self,
        folder: Path,
        server: str,
        tokenizer: Path,
        records: Path,
        strategy: str,
        *,
        asynchronous: bool,
        tuning: str = "full",
    ) -> None:
        self.folder, self.server, self.tokenizer, self.records = folder, server, tokenizer, records
        self.chosen = (*STRATEGIES[strategy], f"checkpoint.asynchronous={asynchronous}", f"tuning={tuning}")
        if tuning != "full":
            base = save_model(folder / "base", tokenizer)
            self.chosen += (f"model.path={base}", "data.max_length=64", "optim.lr=1e-2", "tuning.dropout=0.3")
        self.most_lost = 2 * EVERY - 1 if asynchronous else EVERY

    def run(self, name: str, **how: Any) -> Started:
        line = command(self.folder, self.tokenizer, self.records, f"run.name={name}", *OVERRIDES, *self.chosen)
        return Started(self.server, line, self.folder, **how)

    def straight(self) -> None:
        """The run that is never killed, to compare with."""
        done = completed(self.run("straight"))
        assert done.returncode == 0, done.stderr

    def writes(self, rank: int) -> list[str]:
        """All writes of a run's checkpoints by one rank, in order."""
        log = self.folder / f"writes-{rank}"
        done = completed(
            self.run(
                f"count-{rank}",
                hook="faults.crash:kill_at",
                hook_arguments=(
                    str(self.path(f"count-{rank}") / "checkpoints"),
                    0,
                    rank,
                    str(log),
                ),
            )
        )
        assert done.returncode == 0, done.stderr
        return log.read_text(encoding="utf-8").splitlines()

    def killed_at_write(self, number: int, rank: int) -> Outcome:
        """Killed right before a write of a checkpoint, started again, compared."""
        name = f"write-{rank}-{number}"
        checkpoints = str(self.path(name) / "checkpoints")
        process = self.run(name, hook="faults.crash:kill_at", hook_arguments=(checkpoints, number, rank))
        process.wait(120)
        return self._go_on(name, process)

    def killed_after(self, seconds: float) -> Outcome:
        """Killed some time after its first step, started again, compared."""
        name = f"seconds-{seconds:.4f}"
        process = self.run(name)
        metrics = self.path(name) / "metrics.jsonl"
        while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
            time.sleep(0.002)
        time.sleep(seconds)
        if process.poll() is None:
            process.kill_group()
        return self._go_on(name, process)

    def path(self, name: str) -> Path:
        return self.folder / "runs" / name

    def _go_on(self, name: str, process: Started) -> Outcome:
        finished = process.wait() == 0
        assert finished or process.wait() == -signal.SIGKILL, completed(process).stderr
        _wait_for_group(process.pid)
        steps = [int(str(line["step"])) for line in whole_lines(self.path(name) / "metrics.jsonl")]
        done = completed(self.run(name))
        assert done.returncode == 0, done.stderr
        record = json.loads((self.path(name) / "run.json").read_text(encoding="utf-8"))
        outcome = Outcome(max(steps, default=0), record["starts"][-1]["step"], finished)
        assert finished or outcome.reached - outcome.resumed_from <= self.most_lost, f"lost too much: {outcome}"
        assert_equal_runs(self.path("straight"), self.path(name))
        return outcome


def whole_lines(metrics: Path) -> list[dict[str, object]]:
    if not metrics.is_file():
        return []
    return [
        json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1:] == "\n"
    ]


def assert_equal_runs(one: Path, other: Path) -> None:
    """The same weights to the bit, and every step's figures once."""
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    lines, other_lines = (
        [
            {key: value for key, value in line.items() if not key.endswith(OF_THE_MACHINE)}
            for line in read_jsonl(folder / "metrics.jsonl")
        ]
        for folder in (one, other)
    )
    assert lines == other_lines


def _wait_for_group(group: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("processes of a killed run are still there")


def moments(number: int, longest_seconds: float) -> list[float]:
    """Random seconds, the same in every test run."""
    generator = random.Random(7)
    return [generator.uniform(0, longest_seconds) for _ in range(number)]
