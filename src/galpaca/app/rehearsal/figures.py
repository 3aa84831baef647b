"""The measurements of a rehearsal, from the files of its run."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from galpaca.app.config.schema import Config
from galpaca.app.rehearsal.phases import PhaseResults
from galpaca.app.rehearsal.plan import RehearsalPlan
from galpaca.app.train.disk_need import DiskNeed, disk_need
from galpaca.estimate.duration import WARM_UP_STEPS, Pace, RunTime, StepTime, checkpoints_seconds, pace_of, time_to_ask
from galpaca.formatting import format_bytes
from galpaca.runs.checkpoints import Manifest, read_manifest
from galpaca.runs.folder import RunFolder
from galpaca.runs.lines import StepLine, ValidationLine
from galpaca.runs.metrics import read_metrics
from galpaca.runs.record import read_content
from galpaca.runs.record_fields import Machine, PhaseSeconds, PlanFigures, RunContent
from galpaca.training.specs import steps_between_validations


@dataclass(frozen=True)
class Figures:
    """What was measured, and the estimate for the whole run.

    Attributes:
        device: device name.
        ranks: number of ranks.
        steps: steps taken.
        peak_memory_bytes: peak memory, the maximum over ranks and steps.
        device_memory_bytes: memory of one GPU, or of the machine.
        tokens_per_second, mfu: over all ranks, without warm-up; MFU only for GPUs whose peak is known.
        start_seconds: from the command to the first step; None if the system does not report it.
        load_seconds: part of it spent loading weights.
        resume_seconds: like ``start_seconds``, resuming from the checkpoint; None if nothing was killed.
        killed_after_step: last step before the kill; None if the run ended before it could be killed.
        checkpoint_bytes: size of a checkpoint.
        stall_seconds, write_seconds: how long training waited for a checkpoint, and how long writing took.
        last_checkpoint_seconds: time for the last step's checkpoint, which the run waits for.
        export_seconds, reload_seconds: time to export and to reload the released folder.
        answer: an answer of the reloaded model; nonsense after so few steps.
        disk_bytes, free_bytes: disk space that the whole run will need, and free space there.
        num_steps, num_tokens: steps and tokens of the whole run.
        run_seconds: estimated time of the whole run, by part.
    """

    device: str
    ranks: int
    steps: int
    peak_memory_bytes: int
    device_memory_bytes: int | None
    tokens_per_second: float
    mfu: float | None
    start_seconds: float | None
    load_seconds: float
    resume_seconds: float | None
    killed_after_step: int | None
    checkpoint_bytes: int
    stall_seconds: float
    write_seconds: float
    last_checkpoint_seconds: float
    export_seconds: float
    reload_seconds: float
    answer: str
    disk_bytes: int
    free_bytes: int
    num_steps: int
    num_tokens: int
    run_seconds: RunTime

    @property
    def time(self) -> str:
        """The time limit to request from SLURM."""
        return time_to_ask(self.run_seconds.total)

    def rows(self) -> list[tuple[str, str]]:
        memory = f" of {format_bytes(self.device_memory_bytes)}" if self.device_memory_bytes else ""
        load, export, again = map(_seconds, (self.load_seconds, self.export_seconds, self.reload_seconds))
        hours = self.run_seconds.total / 3600
        return [
            ("machine", f"{self.ranks} x {self.device}"),
            ("peak memory", f"{format_bytes(self.peak_memory_bytes)}{memory}, highest over ranks"),
            ("speed", f"{self.tokens_per_second:,.0f} tokens/s"),
            ("MFU", "unknown for this device" if self.mfu is None else f"{self.mfu:.1%}"),
            ("start", f"{_seconds(self.start_seconds)} to the first step, of which {load} loading"),
            ("checkpoint", self._save()),
            ("kill and resume", self._kill()),
            ("export", f"{export}, reloaded in {again}"),
            ("answer", repr(self.answer)),
            ("disk", f"the run will add {format_bytes(self.disk_bytes)}, {format_bytes(self.free_bytes)} are free"),
            ("whole run", f"{hours:.2f} h for {self.num_steps:,} steps, {self.num_tokens:,} tokens"),
            ("request", f"--time={self.time}"),
        ]

    def _save(self) -> str:
        waits, written = _seconds(self.stall_seconds), _seconds(self.write_seconds)
        size, last = format_bytes(self.checkpoint_bytes), _seconds(self.last_checkpoint_seconds)
        return f"{size}: training waits {waits}, writing takes {written}; {last} for the last one"

    def _kill(self) -> str:
        if self.killed_after_step is None:
            return "skipped: the run ended first"
        return f"after step {self.killed_after_step}; {_seconds(self.resume_seconds)} to the first step after resuming"


@dataclass(frozen=True)
class _Files:
    """What the files of a finished rehearsal say.

    Attributes:
        starts: lines of the steps that each start took.
        validations: lines of validations.
        first, last: manifests of the first checkpoint and of the last.
        whole: plan of the whole run.
    """

    content: RunContent
    starts: Sequence[Sequence[StepLine]]
    validations: Sequence[ValidationLine]
    first: Manifest
    last: Manifest
    whole: PlanFigures

    @property
    def steps(self) -> list[StepLine]:
        return [line for start in self.starts for line in start]

    @property
    def seconds(self) -> list[PhaseSeconds]:
        """Phases of each start."""
        return [start.seconds for start in self.content.starts]


def read_figures(plan: RehearsalPlan, results: PhaseResults) -> tuple[Figures, DiskNeed]:
    """The measurements of a finished rehearsal, and the disk space that the real run needs."""
    config = plan.config
    files = _read_files(plan.folder, results)
    pace = pace_of([[_step_time(line) for line in start] for start in files.starts])
    assert pace is not None  # a run that has ended has made steps
    real = RunFolder(plan.folder.root, config.run.name)
    need = disk_need(real, config, files.whole.steps, files.content.parameters or 0, files.last.num_parameters)
    own_bytes = sum(path.stat().st_size for path in plan.home.rglob("*") if path.is_file())
    machine = files.content.last_start.machine or Machine()
    first_start, last_start = files.seconds[0], files.seconds[-1]
    figures = Figures(
        device=machine.device,
        ranks=machine.processes,
        steps=len(files.steps),
        peak_memory_bytes=max(line.peak_memory_bytes or 0 for line in files.steps),
        device_memory_bytes=machine.memory_bytes,
        tokens_per_second=round(pace.tokens_per_second, 1),
        mfu=_mfu(files.starts),
        start_seconds=first_start.until_first_step,
        load_seconds=first_start.load or 0.0,
        resume_seconds=last_start.until_first_step if len(files.seconds) > 1 else None,
        killed_after_step=results.killed_after_step,
        checkpoint_bytes=files.last.num_bytes,
        stall_seconds=files.first.seconds.stall,
        write_seconds=files.first.seconds.write,
        last_checkpoint_seconds=files.last.seconds.stall,
        export_seconds=last_start.release or 0.0,
        reload_seconds=results.reload_seconds,
        answer=results.answer,
        disk_bytes=need.total_bytes,
        free_bytes=shutil.disk_usage(plan.root).free + own_bytes,
        num_steps=files.whole.steps,
        num_tokens=files.whole.tokens,
        run_seconds=_run_time(config, files, pace),
    )
    return figures, need


def _read_files(folder: RunFolder, results: PhaseResults) -> _Files:
    content = read_content(folder.record) or RunContent()
    assert content.whole_plan is not None  # written by every rehearsal
    lines = list(read_metrics(folder.metrics))
    steps = [line for line in lines if isinstance(line, StepLine)]
    last = read_manifest(folder.checkpoint(folder.last_saved_step()))
    return _Files(
        content=content,
        starts=_by_start(steps, [start.step for start in content.starts]),
        validations=[line for line in lines if isinstance(line, ValidationLine)],
        first=results.first_checkpoint or last,
        last=last,
        whole=content.whole_plan,
    )


def to_json(figures: Figures) -> dict[str, Any]:
    """All measurements, with the seconds of the whole run by part."""
    content = {name: value for name, value in vars(figures).items() if name != "run_seconds"}
    whole = {**vars(figures.run_seconds), "total": figures.run_seconds.total}
    return {**content, "run_seconds": {name: round(value, 3) for name, value in whole.items()}, "time": figures.time}


def _run_time(config: Config, files: _Files, pace: Pace) -> RunTime:
    whole, first, last = files.whole, files.first, files.last
    start, end = files.seconds[0], files.seconds[-1]
    in_steps = pace.steps_seconds(whole.steps, whole.tokens)
    num_checkpoints = _num_checkpoints(config, whole.steps, whole.steps_per_epoch, in_steps)
    validation = max((line.val_seconds or 0.0 for line in files.validations), default=0.0)
    every = steps_between_validations(config.trainer, config.checkpoint, whole.steps_per_epoch)
    in_background = first is not last and config.checkpoint.asynchronous
    return RunTime(
        start=start.until_first_step or start.load or 0.0,
        warm_up=pace.warm_up_seconds,
        steps=in_steps,
        checkpoints=checkpoints_seconds(
            num_checkpoints,
            in_steps / max(1, num_checkpoints),
            stall=first.seconds.stall,
            write=first.seconds.write if in_background else 0.0,
            last=last.seconds.stall,
        ),
        validations=validation * _times(every, whole),
        samples=(start.samples or 0.0) * _times(config.samples.every_steps, whole),
        release=end.release or 0.0,
    )


def _times(every_steps: int | None, whole: PlanFigures) -> int:
    """How often something happens every so many steps (default: each epoch), including after the last step."""
    return math.ceil(whole.steps / (every_steps or whole.steps_per_epoch))


def _num_checkpoints(config: Config, num_steps: int, steps_per_epoch: int, in_steps: float) -> int:
    saving = config.checkpoint
    steps = {num_steps}
    for every in (saving.every_steps, steps_per_epoch if saving.every_epoch else None):
        steps |= set(range(every, num_steps + 1, every)) if every else set()
    by_minutes = int(in_steps / (60 * saving.every_minutes)) if saving.every_minutes else 0
    return len(steps) + by_minutes


def _by_start(steps: Sequence[StepLine], begins: Sequence[int]) -> list[list[StepLine]]:
    """Steps grouped by the start that took them; of steps taken twice, the later one."""
    ends = [*begins[1:], len(steps) + 1]
    return [[line for line in steps if begin < line.step <= end] for begin, end in zip(begins, ends, strict=True)]


def _step_time(line: StepLine) -> StepTime:
    return StepTime(line.tokens, line.step_seconds or 0.0, line.forward_backward_seconds or 0.0)


def _mfu(starts: Sequence[Sequence[StepLine]]) -> float | None:
    everything = [line for start in starts for line in start]
    steady = [line for start in starts for line in start[WARM_UP_STEPS:]] or everything
    known = [(line.mfu, line.step_seconds) for line in steady if line.mfu is not None and line.step_seconds]
    seconds = sum(spent for _, spent in known)
    return round(sum(mfu * spent for mfu, spent in known) / seconds, 4) if seconds else None


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.1f} s" if value >= 1 else f"{value:.2f} s"
