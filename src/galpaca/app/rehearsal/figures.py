"""The measurements of a rehearsal, from the files of its run."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from galpaca.app.config.schema import Config
from galpaca.app.rehearsal.phases import PhaseResults
from galpaca.app.rehearsal.plan import RehearsalPlan
from galpaca.app.train.disk_space import DiskNeed, disk_need
from galpaca.estimate.duration import (
    WARM_UP_STEPS,
    Pace,
    RunTime,
    StepTime,
    checkpoints_seconds,
    pace_of,
    time_to_ask,
)
from galpaca.formatting import format_bytes
from galpaca.runs.checkpoints import Manifest, read_manifest
from galpaca.runs.folder import RunFolder
from galpaca.runs.metrics import read_metrics
from galpaca.runs.record import RunRecord

Line = Mapping[str, Any]


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


def read_figures(plan: RehearsalPlan, results: PhaseResults) -> tuple[Figures, DiskNeed]:
    """The measurements of a finished rehearsal, and the disk space that the real run needs."""
    folder, config = plan.folder, plan.config
    content = RunRecord(folder.record).content
    lines = list(read_metrics(folder.metrics))
    last = read_manifest(folder.checkpoint(folder.last_saved_step()))
    first = results.first_checkpoint or last
    steps = [line for line in lines if "loss" in line]
    starts = _by_start(steps, [start["step"] for start in content["starts"]])
    pace = pace_of([[_step_time(line) for line in start] for start in starts])
    assert pace is not None  # a run that has ended has made steps
    seconds = [start["seconds"] for start in content["starts"]]
    whole, real = content["whole_plan"], RunFolder(folder.root, config.run.name)
    need = disk_need(real, config, whole["steps"], content["parameters"], last.num_parameters)
    own_bytes = sum(path.stat().st_size for path in plan.home.rglob("*") if path.is_file())
    figures = Figures(
        device=content["starts"][-1]["machine"]["device"],
        ranks=content["starts"][-1]["machine"]["processes"],
        steps=len(steps),
        peak_memory_bytes=max(line["peak_memory_bytes"] for line in steps),
        device_memory_bytes=content["starts"][-1]["machine"]["memory_bytes"],
        tokens_per_second=round(pace.tokens_per_second, 1),
        mfu=_mfu(starts),
        start_seconds=seconds[0].get("until_first_step"),
        load_seconds=seconds[0]["load"],
        resume_seconds=seconds[-1].get("until_first_step") if len(seconds) > 1 else None,
        killed_after_step=results.killed_after_step,
        checkpoint_bytes=last.num_bytes,
        stall_seconds=first.seconds["stall"],
        write_seconds=first.seconds["write"],
        last_checkpoint_seconds=last.seconds["stall"],
        export_seconds=seconds[-1]["release"],
        reload_seconds=results.reload_seconds,
        answer=results.answer,
        disk_bytes=need.total_bytes,
        free_bytes=shutil.disk_usage(plan.place).free + own_bytes,
        num_steps=whole["steps"],
        num_tokens=whole["tokens"],
        run_seconds=_run_time(config, whole, pace, seconds, lines, first, last),
    )
    return figures, need


def to_json(figures: Figures) -> dict[str, Any]:
    """All measurements, with the seconds of the whole run by part."""
    content = {name: value for name, value in vars(figures).items() if name != "run_seconds"}
    whole = {**vars(figures.run_seconds), "total": figures.run_seconds.total}
    return {**content, "run_seconds": {name: round(value, 3) for name, value in whole.items()}, "time": figures.time}


def _run_time(
    config: Config,
    whole: Mapping[str, Any],
    pace: Pace,
    seconds: Sequence[Mapping[str, float]],
    lines: Sequence[Line],
    first: Manifest,
    last: Manifest,
) -> RunTime:
    num_steps = whole["steps"]
    in_steps = pace.steps_seconds(num_steps, whole["tokens"])
    num_checkpoints = _num_checkpoints(config, num_steps, whole["steps_per_epoch"], in_steps)
    validation = max((line["val_seconds"] for line in lines if "val_seconds" in line), default=0.0)
    beside = first is not last
    return RunTime(
        start=seconds[0].get("until_first_step", seconds[0]["load"]),
        warm_up=pace.warm_up_seconds,
        steps=in_steps,
        checkpoints=checkpoints_seconds(
            num_checkpoints,
            in_steps / max(1, num_checkpoints),
            stall=first.seconds["stall"],
            write=first.seconds["write"] if beside and config.checkpoint.asynchronous else 0.0,
            last=last.seconds["stall"],
        ),
        validations=validation * _times(config.trainer.val_every_steps, whole),
        samples=seconds[0].get("samples", 0.0) * _times(config.samples.every_steps, whole),
        release=seconds[-1]["release"],
    )


def _times(every_steps: int | None, whole: Mapping[str, Any]) -> int:
    """How often something happens every so many steps (default: each epoch), including after the last step."""
    return math.ceil(whole["steps"] / (every_steps or whole["steps_per_epoch"]))


def _num_checkpoints(config: Config, num_steps: int, steps_per_epoch: int, in_steps: float) -> int:
    saving = config.checkpoint
    steps = {num_steps}
    for every in (saving.every_steps, steps_per_epoch if saving.every_epoch else None):
        steps |= set(range(every, num_steps + 1, every)) if every else set()
    by_minutes = int(in_steps / (60 * saving.every_minutes)) if saving.every_minutes else 0
    return len(steps) + by_minutes


def _by_start(steps: Sequence[Line], begins: Sequence[int]) -> list[list[Line]]:
    """Steps grouped by the start that took them; of steps taken twice, the later one."""
    ends = [*begins[1:], len(steps) + 1]
    return [[line for line in steps if begin < line["step"] <= end] for begin, end in zip(begins, ends, strict=True)]


def _step_time(line: Line) -> StepTime:
    return StepTime(line["tokens"], line["step_seconds"], line["forward_backward_seconds"])


def _mfu(starts: Sequence[Sequence[Line]]) -> float | None:
    steady = [line for start in starts for line in start[WARM_UP_STEPS:]] or [
        line for start in starts for line in start
    ]
    steady = [line for line in steady if "mfu" in line]
    seconds = sum(line["step_seconds"] for line in steady)
    return round(sum(line["mfu"] * line["step_seconds"] for line in steady) / seconds, 4) if seconds else None


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.1f} s" if value >= 1 else f"{value:.2f} s"
