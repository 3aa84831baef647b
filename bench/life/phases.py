"""The phases of a life, each with its checks."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench.life.compare import LOSS_TOLERANCE, loss_difference, other_bits, other_lines, other_plan, step_lines
from bench.life.host import Watch
from bench.life.plan import KILLED, MOVED, STARTS, STRAIGHT, LifePlan
from bench.life.ranks import Ranks
from bench.session import Session
from galpaca.app.rehearsal import reload
from galpaca.app.rehearsal.child import Child
from galpaca.app.rehearsal.plan import environment_alone
from galpaca.errors import StoppedBySignal
from galpaca.runs.checkpoints import Manifest, damage, read_manifest
from galpaca.runs.folder import RunFolder
from galpaca.runs.record import read_content

_WARM_UP_STEPS = 4
# Steps that a start on other ranks makes before the next signal.
_STEPS_BETWEEN = 2
_RELOAD_SECONDS = 180.0


class Life:
    """Leads all phases from the first rank; what each found is in ``phases``.

    Args:
        make_ranks: the ranks, given what to call while waiting for them.
    """

    def __init__(self, plan: LifePlan, session: Session, make_ranks: Callable[[Callable[[], None]], Ranks]) -> None:
        self.plan, self.session = plan, session
        self.phases: dict[str, Any] = {}
        self._watch = Watch(plan.run(STRAIGHT))
        self._ranks = make_ranks(lambda: self._watch.look())
        self._straight: Manifest | None = None

    def live(self) -> None:
        """All phases, as far as the time allows; each that depends on one that failed is left out."""
        one_rank = "there is only one rank" if self.plan.num_ranks == 1 else None
        self._phase("straight", self._run_straight)
        self._phase("killed", self._kill, after="straight")
        self._phase("resumed", self._resume, after="killed")
        self._phase("loaded", self._load, after="resumed")
        self._phase("signalled", self._signal, after="straight")
        self._phase("on fewer ranks", self._on_fewer, after="signalled", lack=one_rank)
        self._phase("on all ranks again", self._again, after="signalled")

    def _phase(self, name: str, run: Callable[[], dict[str, Any]], *, after: str = "", lack: str | None = None) -> None:
        missing = None if not after or after in self.phases else f"{after!r} did not come to its end"

        def checked() -> dict[str, Any]:
            try:
                return run()
            finally:
                self._ranks.kill()

        self.session.run(name, checked, self.phases, name, lack=lack or missing)

    def _run_straight(self) -> dict[str, Any]:
        folder = self._start(1)
        ended = self._ended(self._ranks.wait(), 0)
        self._straight = self._last(folder)
        found = {**ended, **self._watch.figures(), **_speed(step_lines(folder.metrics))}
        found |= {"start": _start_seconds(folder)}
        broken = damage(folder.checkpoint(self._straight.step))
        shutil.rmtree(folder.checkpoints)  # a disk need not hold those of several runs
        return {**found, "damaged": broken, "passed": not broken}

    def _kill(self) -> dict[str, Any]:
        """After a checkpoint, with later steps done."""
        folder = self._start(2)
        codes = self._ranks.wait(lambda: 0 < folder.last_saved_step() < _last_step(folder))
        if codes is not None:
            raise RuntimeError(f"ended with {codes} before it could be killed: {self._ranks.printed()}")
        self._ranks.kill()
        return {"after_step": _last_step(folder), "saved_step": folder.last_saved_step(), **self._watch.figures()}

    def _resume(self) -> dict[str, Any]:
        """To its end; weights, moments and figures must be those of the run that was never killed."""
        folder = self._start(3)
        ended = self._ended(self._ranks.wait(), 0)
        assert self._straight is not None
        bits = other_bits(self._straight, self._last(folder))
        straight, own = (step_lines(self.plan.run(name).metrics) for name in (STRAIGHT, KILLED))
        lines, furthest = other_lines(straight, own), loss_difference(straight, own)
        content = read_content(folder.record)
        equal = not bits and not lines
        found = {
            **ended,
            "resumed_after_step": content.starts[-1].step if content else None,
            "equal_bits": equal,
            "other_files": bits,
            "other_figures": lines[:10],
            "loss_difference": furthest,
            **self._watch.figures(),
        }
        # Without deterministic algorithms a GPU may add in any order: then it is a fact, and losses must be near.
        exact = self.plan.deterministic or self.plan.accelerator == "cpu"
        return {**found, "passed": equal if exact else furthest <= LOSS_TOLERANCE}

    def _load(self) -> dict[str, Any]:
        """The released folder, as its users do, in a process of its own."""
        out = self.plan.folder / "reload.json"
        command = reload.command(self.plan.run(KILLED).path, out)
        environment = {**environment_alone(), "PYTHONPATH": self.plan.environment(1)["PYTHONPATH"]}
        child = Child(command, environment, self.plan.log(0), 7)
        deadline = time.monotonic() + _RELOAD_SECONDS
        try:
            while child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            child.kill()
        if not out.is_file():
            raise RuntimeError(f"the released folder was not loaded: {self._ranks.printed()}")
        answered = json.loads(out.read_text(encoding="utf-8"))
        return {**answered, "passed": isinstance(answered["answer"], str)}

    def _signal(self) -> dict[str, Any]:
        """SIGTERM before the first checkpoint: every step that was made must be saved, the exit code is 143."""
        shutil.rmtree(self.plan.run(KILLED).checkpoints, ignore_errors=True)
        return self._stopped(self._start(4), _STEPS_BETWEEN)

    def _on_fewer(self) -> dict[str, Any]:
        folder = self.plan.run(MOVED)
        return self._stopped(self._start(5), folder.last_saved_step() + _STEPS_BETWEEN)

    def _again(self) -> dict[str, Any]:
        """To its end; its losses must be near those of the run that was never disturbed."""
        folder = self._start(6)
        ended = self._ended(self._ranks.wait(), 0)
        lines = [step_lines(self.plan.run(name).metrics) for name in (STRAIGHT, MOVED)]
        furthest, plan = loss_difference(*lines), other_plan(*lines)
        content = read_content(folder.record)
        return {
            **ended,
            "started_at": [start.step for start in content.starts] if content else [],
            "ranks": [start.machine.processes for start in content.starts if start.machine] if content else [],
            "loss_difference": furthest,
            "tolerance": LOSS_TOLERANCE,
            "other_steps": plan[:10],
            "passed": not plan and furthest <= LOSS_TOLERANCE,
        }

    def _stopped(self, folder: RunFolder, after_step: int) -> dict[str, Any]:
        codes = self._ranks.wait(lambda: _last_step(folder) >= after_step)
        if codes is None:
            self._ranks.send(signal.SIGTERM)
            codes = self._ranks.wait()
        found = self._ended(codes, StoppedBySignal.exit_code)
        done, saved = _last_step(folder), folder.last_saved_step()
        figures = {"after_step": done, "saved_step": saved, **self._watch.figures()}
        return {**found, **figures, "passed": done == saved < self.plan.steps}

    def _start(self, number: int) -> RunFolder:
        folder = self.plan.run(STARTS[number].run)
        self._watch = Watch(folder)
        self._ranks.start(number)
        return folder

    def _ended(self, codes: dict[int, int] | None, expected: int) -> dict[str, Any]:
        """The first rank's exit code is the command's; others that stopped by agreement leave with 0.

        Raises:
            RuntimeError: another one; with the end of what was printed.
        """
        assert codes is not None
        if codes[0] != expected or any(code not in (0, expected) for code in codes.values()):
            raise RuntimeError(f"exit codes by rank {codes}, not {expected}: {self._ranks.printed()}")
        return {"exit_codes": {str(rank): code for rank, code in codes.items()}}

    def _last(self, folder: RunFolder) -> Manifest:
        """Manifest of the last step's checkpoint.

        Raises:
            RuntimeError: there is none; with the end of what was printed.
        """
        if folder.last_saved_step() != self.plan.steps:
            raise RuntimeError(f"last saved: step {folder.last_saved_step()}: {self._ranks.printed()}")
        return read_manifest(folder.checkpoint(self.plan.steps))


def _last_step(folder: RunFolder) -> int:
    if not folder.metrics.is_file():
        return 0
    whole = folder.metrics.read_text(encoding="utf-8").rpartition("\n")[0]
    return max((json.loads(line)["step"] for line in whole.splitlines()), default=0)


def _start_seconds(folder: RunFolder) -> dict[str, float]:
    """How long parts of the last start took: until its first step, loading, the release."""
    content = read_content(folder.record)
    seconds = vars(content.starts[-1].seconds) if content and content.starts else {}
    return {name: value for name, value in seconds.items() if isinstance(value, float)}


def _speed(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the steps after warm-up; the median leaves out those that a checkpoint was written beside."""
    timed = lines[_WARM_UP_STEPS:] or lines
    return {
        "step_seconds": median(line["step_seconds"] for line in timed),
        "slowest_step_seconds": max(line["step_seconds"] for line in timed),
        "tokens_per_second": median(line["tokens_per_second"] for line in timed),
        "mfu": median(line["mfu"] for line in timed) if timed[0].get("mfu") is not None else None,
        "peak_memory_bytes": max(line["peak_memory_bytes"] for line in lines),
        "first_loss": lines[0]["loss"],
        "last_loss": lines[-1]["loss"],
        "loss_scale": lines[-1].get("loss_scale"),
        "skipped_steps": sum(bool(line.get("skipped")) for line in lines),
    }
