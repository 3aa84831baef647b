"""What each start of a run computed, on which machine, and how long it took."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from galpaca.formatting import format_duration
from galpaca.runs.lines import StepLine
from galpaca.runs.metrics import read_metrics
from galpaca.runs.record_fields import Machine, Start


@dataclass(frozen=True)
class TakenSteps:
    """Steps that are part of a model.

    Attributes:
        first, last: which ones.
        machine: what they were taken on; None where that was lost.
        seconds: how long all of them took; None where that was not recorded.
    """

    first: int
    last: int
    machine: Machine | None
    seconds: float | None

    @property
    def what(self) -> str:
        return f"steps {self.first:,} to {self.last:,}"

    @property
    def how(self) -> str:
        """Machine and time in words."""
        if self.machine is None:
            return "not recorded"
        nodes = f" on {self.machine.nodes} nodes" if self.machine.nodes > 1 else ""
        processes = "process" if self.machine.processes == 1 else "processes"
        time = "time not recorded" if self.seconds is None else format_duration(self.seconds)
        return f"{self.machine.processes} {processes}{nodes}, {self.machine.device}: {time}"


def taken_steps(starts: Sequence[Start], metrics: Path, last_step: int) -> list[TakenSteps]:
    """Those of each start that took any, up to a step; those before the first start that is recorded, too."""
    seconds = {line.step: line.step_seconds for line in read_metrics(metrics) if isinstance(line, StepLine)}
    found = []
    if starts and starts[0].step:
        found.append(TakenSteps(1, min(starts[0].step, last_step), None, None))
    for number, start in enumerate(starts):
        # A later start that went back took these steps again.
        stop = min([last_step, *(later.step for later in starts[number + 1 :])])
        taken = range(start.step + 1, stop + 1)
        if taken:
            each = [seconds.get(step) for step in taken]
            known = [one for one in each if one is not None]
            found.append(TakenSteps(taken[0], stop, start.machine, sum(known) if len(known) == len(each) else None))
    return found
