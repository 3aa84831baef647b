"""The phases of a rehearsal: train and kill, resume to the end, reload."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from galpaca.app.rehearsal import reload
from galpaca.app.rehearsal.child import Child
from galpaca.app.rehearsal.coordinator import Coordinator
from galpaca.app.rehearsal.failures import failure
from galpaca.app.rehearsal.plan import RehearsalPlan, environment_alone
from galpaca.errors import GalpacaError
from galpaca.runs.checkpoints import Manifest, read_manifest
from galpaca.runs.metrics import read_metrics
from galpaca.runs.shutdown import Shutdown

# The others fail because of the first, and the first may have the last word.
_SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class PhaseResults:
    """Results of the phases that the run's own files do not keep.

    Attributes:
        killed_after_step: last step in the metrics at the kill; None if the run ended before it could be killed.
        first_checkpoint: manifest of the checkpoint written during training; None in that case.
        reload_seconds, answer: load time and an answer of the released folder.
    """

    killed_after_step: int | None
    first_checkpoint: Manifest | None
    reload_seconds: float
    answer: str


class Phases:
    """Runs all phases, from the first start to the released folder.

    Args:
        plan: what to run.
        coordinator: controls the processes of all ranks.
        shutdown: checked while waiting.
        limit_seconds: time limit of all phases together.
        show: receives a line for each phase.
    """

    def __init__(
        self,
        plan: RehearsalPlan,
        coordinator: Coordinator,
        shutdown: Shutdown,
        limit_seconds: float,
        show: Callable[[str], None],
    ) -> None:
        self.plan, self.coordinator, self.shutdown, self.show = plan, coordinator, shutdown, show
        self.limit_seconds, self._deadline = limit_seconds, time.monotonic() + limit_seconds

    def run(self) -> PhaseResults:
        """Runs the phases.

        Raises:
            InputError, GalpacaError: a phase failed; shows what its processes logged.
            StoppedBySignal: a signal came.
        """
        folder = self.plan.folder
        plan = self.plan
        steps = f"at most {plan.num_steps} steps, the longest"
        first = f"phase 1 of 3: load, train on {steps}, save after {plan.every_steps}"
        self.show(f"{first}, kill")
        self.coordinator.start(1)
        manifest, step = None, None
        if self._wait(first, self._may_be_killed):
            self.coordinator.kill()
            step = self._last_step()
            manifest = read_manifest(folder.checkpoint(folder.last_saved_step()))
            self.show(f"phase 2 of 3: killed after step {step}; resume from step {manifest.step}, save, export")
            self.coordinator.start(2)
            self._wait("phase 2 of 3: resume, save, export", lambda: False)
        else:
            self.show("phase 2 of 3: skipped, because the run ended before it could be killed")
        self.show("phase 3 of 3: load the released folder and generate")
        seconds, answer = self._reload("phase 3 of 3: load the released folder and generate")
        return PhaseResults(step, manifest, seconds, answer)

    def _may_be_killed(self) -> bool:
        saved = self.plan.folder.last_saved_step()
        return 0 < saved < self._last_step()

    def _last_step(self) -> int:
        return max((line.step for line in read_metrics(self.plan.folder.metrics)), default=0)

    def _wait(self, phase: str, until: Callable[[], bool]) -> bool:
        """Waits for a condition, or until the processes of all ranks have ended.

        Returns:
            Whether the condition was met first.
        """
        while len(codes := self.coordinator.codes()) < self.coordinator.num_ranks:
            self._check(phase)
            if any(codes.values()):
                raise failure(self.plan, phase, self._settled())
            if until():
                return True
            time.sleep(self.coordinator.poll_seconds)
        if any(codes.values()):
            raise failure(self.plan, phase, codes)
        return False

    def _settled(self) -> dict[int, int]:
        deadline = time.monotonic() + _SETTLE_SECONDS
        while len(codes := self.coordinator.codes()) < self.coordinator.num_ranks and time.monotonic() < deadline:
            self.shutdown.check("rehearsal")
            time.sleep(self.coordinator.poll_seconds)
        return codes

    def _check(self, phase: str) -> None:
        self.shutdown.check("rehearsal")
        if time.monotonic() > self._deadline:
            raise GalpacaError(
                f"failed: the rehearsal took longer than {self.limit_seconds / 60:g} minutes",
                where=self.plan.log(0),
                why=f"it was in {phase}",
                fix="check the end of its log; raise the limit with --minutes",
            )

    def _reload(self, phase: str) -> tuple[float, str]:
        plan, out = self.plan, self.plan.home / "reload.json"
        child = Child(reload.command(plan.folder.path, out), environment_alone(), plan.log(0), 3)
        try:
            while (code := child.poll()) is None:
                self._check(phase)
                time.sleep(self.coordinator.poll_seconds)
        finally:
            child.kill()
        if code:
            raise failure(plan, phase, {0: min(code, GalpacaError.exit_code)})  # not a user error
        content = json.loads(out.read_text(encoding="utf-8"))
        return content["seconds"], content["answer"]
