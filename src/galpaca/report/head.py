"""What a colleague wants to know of a run first: model, data, recipe, machine and hours."""

from collections.abc import Sequence
from datetime import datetime

from galpaca.formatting import format_duration
from galpaca.report.run import ReportedRun
from galpaca.runs.record_fields import Start

# Keys of the recipe, and how they are said.
_RECIPE: Sequence[tuple[tuple[str, ...], str]] = (
    (("batch.examples",), "{:,} examples a step"),
    (("optim.lr", "optim.schedule"), "learning rate {:g}, {}"),
    (("data.max_length",), "{:,} tokens at most"),
    (("precision.name",), "{}"),
)


def head_rows(run: ReportedRun) -> list[tuple[str, str]]:
    """Label and value of what the run's record knows."""
    start = run.record.last_start
    machines = [f"{one.machine.processes} x {one.machine.device}" for one in run.starts if one.machine]
    rows = [
        ("model", ", ".join(filter(None, [start.setup.get("model"), start.setup.get("tuning")]))),
        ("data", _data(run)),
        ("recipe", _recipe(run)),
        ("machine", ", ".join(dict.fromkeys(machines))),
        ("time", _time(run)),
    ]
    return [(label, value) for label, value in rows if value]


def _data(run: ReportedRun) -> str:
    release, examples = run.record.release, run.record.examples
    if release is None or examples is None:
        return ""
    held_out = ((examples.validation, "to validate"), (examples.test, "to test"))
    sides = [f"{examples.train:,} examples to train on", *(f"{n:,} {purpose}" for n, purpose in held_out if n)]
    return ", ".join(filter(None, [release.dataset, *sides]))


def _recipe(run: ReportedRun) -> str:
    settings, plan = run.record.recipe.settings if run.record.recipe else {}, run.record.plan
    known = [(keys, text) for keys, text in _RECIPE if settings.keys() >= set(keys)]
    steps = run.record.last_step or 0
    epochs = [f"{steps / plan.steps_per_epoch:.3g} epochs"] if plan and plan.steps_per_epoch else []
    return ", ".join([*(text.format(*(settings[key] for key in keys)) for keys, text in known), *epochs])


def _time(run: ReportedRun) -> str:
    """In steps, and by the clock: how long a start took that was killed, nobody knows."""
    if not run.final.steps:
        return ""
    known = [seconds for start in run.starts if (seconds := _clock_seconds(start)) is not None]
    least = "at least " if len(known) < len(run.starts) else ""
    clock = f", {least}{format_duration(sum(known))} from start to end" if known else ""
    starts = f", {len(run.starts)} starts" if len(run.starts) > 1 else ""
    return f"{format_duration(run.final.train_seconds)} in training steps{clock}{starts}"


def _clock_seconds(start: Start) -> float | None:
    try:
        return (_moment(start.ended.time) - _moment(start.time)).total_seconds() if start.ended else None
    except ValueError:  # a stamp that somebody has changed
        return None


def _moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)
