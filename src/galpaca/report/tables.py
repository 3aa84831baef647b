"""The parts of a report that are words and tables."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from galpaca.data.receipt import Receipt
from galpaca.formatting import format_bytes, format_count, format_duration, format_figure, format_moment
from galpaca.report.charts import Chart
from galpaca.report.run import ReportedRun
from galpaca.runs.record_fields import Start
from galpaca.runs.typed import encode

_TABLE_ROWS = 12


@dataclass(frozen=True)
class Card:
    """A figure that matters, in large.

    Attributes:
        more: a few words below it.
        share: fraction from 0 to 1, shown as a bar.
    """

    label: str
    value: str
    more: str = ""
    share: float | None = None


def cards(run: ReportedRun) -> list[Card]:
    final = run.final
    of_all = f"of {run.num_steps:,}" if run.num_steps else ""
    shown = [
        Card("steps", f"{run.history.last_step:,}", of_all, run.history.last_step / (run.num_steps or 1) or None),
        Card("time in training steps", format_duration(final.train_seconds), _left(run)),
        Card("tokens", format_count(final.tokens), f"{format_count(final.target_tokens)} with loss"),
        Card("loss", format_figure(_round(final.loss)), f"from {format_figure(_round(final.first_loss))}"),
    ]
    known = [(line.val_loss, line.step) for line in run.history.validations if line.val_loss is not None]
    if known:
        _, best = min(known, key=lambda one: one[0])
        shown.append(Card("validation loss", format_figure(_round(final.val_loss)), f"best at step {best:,}"))
    shown.append(Card("tokens/s", format_count(final.tokens_per_second or 0), "mean"))
    utilized = [line.mfu for line in run.history.steps if line.mfu is not None]
    if utilized:
        shown.append(Card("MFU", f"{sum(utilized) / len(utilized):.1%}", "mean over steps"))
    shown.append(Card("peak memory", format_bytes(final.peak_memory_bytes or 0), "per process"))
    if final.skipped_steps:
        shown.append(Card("steps skipped", f"{final.skipped_steps:,}", "their updates were left out"))
    return shown


def _round(loss: float | None) -> float | None:
    return None if loss is None else float(f"{loss:.4g}")


def _left(run: ReportedRun) -> str:
    done, final = run.history.last_step, run.final
    if not run.state.is_alive or not run.num_steps or not final.steps:
        return ""
    return f"{format_duration((run.num_steps - done) * final.train_seconds / final.steps)} left"


@dataclass(frozen=True)
class Table:
    """Rows of text below headers; ``numbers`` says which columns are right-aligned."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


def chart_table(chart: Chart, runs: Sequence[ReportedRun]) -> Table:
    """A chart's lines at a dozen steps, for those who cannot see it."""
    lines = [line for line in chart.lines if len(line.series)]
    most = max(lines, key=lambda line: len(line.series)).series.steps
    steps = sorted({int(most[round(i * (len(most) - 1) / (_TABLE_ROWS - 1))]) for i in range(_TABLE_ROWS)})
    names = [
        " ".join(filter(None, [runs[line.run].name if len(runs) > 1 else "", line.label or chart.title.lower()]))
        for line in lines
    ]
    rows = []
    for step in steps:
        nearest = [int(abs(line.series.steps - step).argmin()) for line in lines]
        cells = [
            format_figure(float(line.series.values[at])) if _is_near(line.series.steps[at], step, steps) else "–"
            for line, at in zip(lines, nearest, strict=True)
        ]
        rows.append([f"{step:,}", *cells])
    return Table([chart.x, *names], rows, frozenset(range(len(names) + 1)))


def _is_near(nearest: float, step: int, steps: Sequence[int]) -> bool:
    """Within half of the distance between two rows: else the row would show what was not there."""
    return abs(nearest - step) <= max(1.0, (steps[-1] - steps[0]) / max(1, len(steps) - 1) / 2)


def receipt_rows(run: ReportedRun) -> list[tuple[str, str]]:
    """What became of the records; nothing where the run has not got so far."""
    kept = run.record.receipt
    if not kept:
        return []
    examples = run.record.examples
    held_out = [("held out for validation", f"{examples.validation:,}")] if examples else []
    if examples and examples.test:
        held_out.append(("held out for a test", f"{examples.test:,}"))
    return [*Receipt.from_dict(kept).rows(), *held_out]


def plan_rows(run: ReportedRun) -> list[tuple[str, str]]:
    plan = encode(run.record.plan) if run.record.plan else {}
    return [(key.replace("_", " "), format_figure(value)) for key, value in plan.items()]


def provenance_rows(run: ReportedRun) -> list[tuple[str, str]]:
    """What the run was made of."""
    record = run.record
    recipe = record.recipe.settings if record.recipe else {}
    weights = record.weights
    rows = [
        ("run", record.id),
        ("created", _when(record.created)),
        ("folder", str(run.folder.path)),
        ("parameters", format_figure(record.parameters)),
        ("weights", "random" if "path" in weights and weights["path"] is None else ""),
        *((f"weights: {key.replace('_', ' ')}", _text(value)) for key, value in weights.items() if value is not None),
        ("data fingerprint", recipe.get("data.fingerprint", "")),
        ("tokenizer fingerprint", recipe.get("tokenizer.fingerprint", "")),
    ]
    return [(label, value) for label, value in rows if value and value != "–"]


def starts_table(run: ReportedRun) -> Table:
    rows = []
    for start in run.starts:
        machine, git = start.machine, start.git
        where = f"{machine.processes} x {machine.device}" if machine else ""
        host = ", ".join(filter(None, [start.host, f"job {start.slurm_job}" if start.slurm_job else ""]))
        commit = git.commit[:10] + (" with changes" if git.dirty else "") if git else ""
        rows.append([_when(start.time), f"{start.step:,}", where, host, commit, _end(run, start)])
    return Table(["started", "after step", "machine", "host", "commit", "ended"], rows, frozenset([1]))


def _end(run: ReportedRun, start: Start) -> str:
    if start.ended:
        return ": ".join(filter(None, [start.ended.how, start.ended.why]))
    if start is run.starts[-1]:
        return run.state.kind if run.state.kind != "stopped" else "not recorded"
    return "killed, or not recorded"


def versions_rows(run: ReportedRun) -> list[tuple[str, str]]:
    """Of the last start, and what differed in those before."""
    starts = run.starts
    last = run.record.last_start.versions
    rows = []
    for name, version in last.items():
        earlier = sorted({start.versions.get(name, version) for start in starts} - {version})
        rows.append((name, version + (f" (earlier: {', '.join(earlier)})" if earlier else "")))
    return rows


def accepted_changes(run: ReportedRun) -> list[str]:
    return [f"after step {start.step:,}: {change}" for start in run.starts for change in start.accepted_changes]


def commands(run: ReportedRun) -> list[str]:
    """Every start's command line that differs from the one before."""
    found: list[str] = []
    for start in run.starts:
        line = shlex.join(start.command)
        if line and line not in found[-1:]:
            found.append(line)
    return found


def checkpoints_table(run: ReportedRun) -> Table:
    rows = [
        [
            f"{manifest.step:,}",
            _when(manifest.time),
            format_bytes(manifest.num_bytes),
            str(manifest.num_ranks),
            format_figure(_round(run.history.loss_of(manifest.step))),
            format_figure(_round(run.history.val_loss_of(manifest.step))),
            f"{manifest.seconds.stall:.2f}, {manifest.seconds.write:.2f} s",
        ]
        for manifest in run.checkpoints
    ]
    headers = ["step", "taken", "size", "ranks", "loss", "validation loss", "stall, write"]
    return Table(headers, rows, frozenset([0, 2, 3, 4, 5, 6]))


def config_differences(runs: Sequence[ReportedRun]) -> Table:
    """Every value of the configuration in which runs differ."""
    flat = [run.flat_config() for run in runs]
    keys = sorted({key for one in flat for key in one})
    shown = {key: [_text(one[key]) if key in one else "–" for one in flat] for key in keys}
    rows = [[key, *values] for key, values in shown.items() if len(set(values)) > 1]
    return Table(["key", *(run.name for run in runs)], rows)


@dataclass(frozen=True)
class Question:
    """A question of the samples, and its answers in order: first step, last step, answer."""

    category: str
    instruction: str
    input: str
    answers: Sequence[tuple[int, int, str]]


def questions(run: ReportedRun) -> list[Question]:
    """The questions of the run's samples; an answer that stays the same is shown once."""
    answers: dict[tuple[str, str, str], dict[int, str]] = {}
    for line in run.samples:
        answers.setdefault(line.question, {})[line.step] = line.answer  # of a step taken again, the later one
    return [Question(*key, _unchanged_once(of_steps)) for key, of_steps in answers.items()]


def _unchanged_once(answers: Mapping[int, str]) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    for step, answer in sorted(answers.items()):
        if found and found[-1][2] == answer:
            found[-1] = (found[-1][0], step, answer)
        else:
            found.append((step, step, answer))
    return found


def notes(run: ReportedRun) -> list[str]:
    """What a reader should know before trusting the plots."""
    notes = []
    if run.history.unreadable:
        notes.append(f"Unreadable lines of metrics.jsonl, left out: {run.history.unreadable}.")
    if not run.history.steps:
        notes.append("No step has been taken yet, so there is nothing to plot.")
    if run.state.is_alive:
        notes.append(f"The run was still in progress when this was written, {format_moment(run.read_at)}.")
    if run.record.early_stop_step is not None:
        ended = f"Training ended early, after step {run.record.early_stop_step:,} of {run.num_steps or 0:,}"
        notes.append(f"{ended}: the validation loss no longer fell.")
    notes += _of_non_finite(run)
    gaps = _missing_steps(run)
    if gaps:
        notes.append(f"Steps missing from metrics.jsonl: {gaps:,}.")
    return notes


def _of_non_finite(run: ReportedRun) -> list[str]:
    lines = [line for line in run.history.steps if line.non_finite]
    if not lines:
        return []
    back = sum(line.rolled_back_to is not None for line in lines)
    steps = f"Steps whose loss or gradient was not finite: {', '.join(str(line.step) for line in lines[:10])}"
    more = f" and {len(lines) - 10} more" if len(lines) > 10 else ""
    rolled = f" The weights were restored from a checkpoint {back} times." if back else ""
    return [f"{steps}{more}; their updates were skipped.{rolled} See non_finite.jsonl."]


def _missing_steps(run: ReportedRun) -> int:
    return run.history.last_step - len({line.step for line in run.history.steps})


def _when(stamp: Any) -> str:
    return str(stamp or "")[:16].replace("T", " ")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
