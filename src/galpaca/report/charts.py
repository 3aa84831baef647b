"""Which plots a report shows, and the numbers they are drawn from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from galpaca.report.run import ReportedRun
from galpaca.report.series import Series, extremes, is_number, read_series, smoothed, stretch_means, window_for
from galpaca.runs.lines import StepLine, ValidationLine, figures
from galpaca.runs.record_fields import Histograms

_CLOCK_POINTS = 400
_SPLIT_STRETCHES = 100
_TOWERING = 20
_MOST_FURTHER = 12


@dataclass(frozen=True)
class Line:
    """What is drawn as one line, or as points.

    Attributes:
        run: its index among the runs.
        label: label, shown after the run's name.
        look: ``raw`` is faint where ``smooth`` is drawn over it; ``line``, ``points``, ``marks`` (points
            that no line joins), ``area`` (on top of the one
            before) and ``bars``.
    """

    run: int
    label: str
    look: str
    series: Series


@dataclass(frozen=True)
class Chart:
    """One plot.

    Attributes:
        id: also its anchor in the page.
        unit: unit of the values.
        x: ``step``, which the reader may turn into tokens or hours, or ``tokens``, which stays.
        can_log: a logarithmic axis makes sense.
        note: a sentence below the title.
    """

    id: str
    title: str
    unit: str
    lines: Sequence[Line]
    x: str = "step"
    can_log: bool = False
    note: str = ""

    @property
    def starts_log(self) -> bool:
        """A few values that tower over all others would leave a flat line of these."""
        values = [line.series.values for line in self.lines if line.look == "raw" and len(line.series)]
        return self.can_log and self.id != "loss" and any(v.max() > _TOWERING * np.median(v) for v in values)

    def to_json(self) -> dict[str, Any]:
        shown = [
            {
                "run": line.run,
                "label": line.label,
                "look": line.look,
                "x": _numbers(line.series.steps, 9),
                "y": _numbers(line.series.values, 5),
            }
            for line in self.lines
        ]
        axes = {"x": self.x, "log": self.starts_log}
        return {"id": self.id, "title": self.title, "unit": self.unit, **axes, "lines": shown}


@dataclass(frozen=True)
class _Figure:
    """A figure of ``metrics.jsonl`` that is drawn as it is."""

    key: str
    title: str
    unit: str
    scale: float = 1.0
    note: str = ""
    can_log: bool = False
    smooth: bool = False
    weight: Callable[[StepLine], float] = lambda line: 1.0

    def of(self, line: StepLine) -> Any:
        return getattr(line, self.key)

    def series(self, lines: Sequence[StepLine]) -> Series:
        read = read_series(lines, self.of)
        return Series(read.steps, read.values * self.scale)


_LOSS = _Figure("loss", "Loss", "nats per token", weight=lambda line: line.target_tokens or 1.0)
_FIGURES = (
    _Figure("lr", "Learning rate", ""),
    _Figure("grad_norm", "Gradient norm", "", note="Before clipping.", can_log=True, smooth=True),
    _Figure("tokens_per_second", "Tokens per second", "tokens/s", note="All ranks, without padding.", smooth=True),
    _Figure(
        "mfu", "Model FLOPs utilization", "%", 100.0, note="Relative to the dense peak, without padding.", smooth=True
    ),
    _Figure("peak_memory_bytes", "Peak memory", "GiB", 2.0**-30, note="Maximum over ranks so far."),
    _Figure(
        "step_seconds", "Time of a step", "s", note="Without validations and checkpoints.", can_log=True, smooth=True
    ),
    _Figure("loss_scale", "Loss scale", "", note="For 16-bit floats.", can_log=True),
)
# Drawn elsewhere, or of no interest over steps.
_NOT_FURTHER = {"epoch", "loss", "skipped", "data_seconds", "forward_backward_seconds", "optimizer_seconds"}
_NOT_FURTHER |= {"examples", "tokens", "target_tokens", "micro_batches", "target_tokens_per_second"}
_NOT_FURTHER |= {"spike", "non_finite", "rolled_back_to"}
_NOT_FURTHER |= {figure.key for figure in _FIGURES}


def charts(runs: Sequence[ReportedRun]) -> list[Chart]:
    """All plots that have something to show."""
    made = [_loss(runs), *(_of_figure(runs, figure) for figure in _FIGURES), *_splits(runs), *_histograms(runs)]
    return [chart for chart in [*made, *_further(runs)] if any(len(line.series) for line in chart.lines)]


def clock(run: ReportedRun) -> dict[str, list[float]]:
    """Tokens and hours so far, at some steps: what turns a step into them."""
    steps = run.history.steps
    sampled = sorted({round(index) for index in np.linspace(0, len(steps) - 1, _CLOCK_POINTS)}) if steps else []
    tokens = np.cumsum([line.tokens for line in steps])
    hours = np.cumsum([line.step_seconds or 0.0 for line in steps]) / 3600
    return {
        "step": [0.0, *(float(steps[index].step) for index in sampled)],
        "tokens": [0.0, *(float(tokens[index]) for index in sampled)],
        "hours": [0.0, *_numbers(hours[sampled], 6)],
    }


def _loss(runs: Sequence[ReportedRun]) -> Chart:
    lines: list[Line] = []
    for index, run in enumerate(runs):
        lines += _raw_and_smooth(index, run, _LOSS)
        spikes = read_series((line for line in run.history.steps if line.spike), attrgetter("loss"))
        if len(spikes):
            lines.append(Line(index, "spikes", "marks", spikes))
        lines.append(Line(index, "validation", "points", read_series(run.history.validations, attrgetter("val_loss"))))
        # A run may validate on several sets of records, each with a figure of its own.
        keys = sorted({key for line in run.history.validations for key in line.extra if key.startswith("val_loss")})
        for key in keys:
            label = "validation" + key.removeprefix("val_loss").replace("_", " ")
            lines.append(Line(index, label, "points", read_series(run.history.validations, _named(key))))
    return Chart("loss", "Loss", "nats per token", lines, can_log=True, note=_smoothing_note(runs))


def _smoothing_note(runs: Sequence[ReportedRun]) -> str:
    windows = sorted({window_for(len(run.history.steps)) for run in runs if run.history.steps})
    widths = " or ".join(str(window) for window in windows)
    return f"Mean over target tokens: each step, and smoothed over {widths} steps." if widths else ""


def _raw_and_smooth(index: int, run: ReportedRun, figure: _Figure) -> list[Line]:
    with_figure = [line for line in run.history.steps if is_number(figure.of(line))]
    raw = figure.series(with_figure)
    weights = np.array([figure.weight(line) for line in with_figure], dtype=np.float64)
    smooth = smoothed(raw, weights, window_for(len(raw)))
    return [Line(index, "each step", "raw", extremes(raw)), Line(index, "smoothed", "smooth", extremes(smooth))]


def _of_figure(runs: Sequence[ReportedRun], figure: _Figure) -> Chart:
    lines: list[Line] = []
    for index, run in enumerate(runs):
        if figure.smooth:
            lines += _raw_and_smooth(index, run, figure)
        else:
            lines.append(Line(index, "", "line", extremes(figure.series(run.history.steps))))
    identity = figure.key.replace("_", "-")
    return Chart(identity, figure.title, figure.unit, lines, can_log=figure.can_log, note=figure.note)


_PARTS = ("waiting for data", "forward and backward", "optimizer")


def _splits(runs: Sequence[ReportedRun]) -> list[Chart]:
    """For each run, its own: stacked areas of several runs would hide each other."""
    made = []
    for index, run in enumerate(runs):
        whole = [line for line in run.history.steps if line.part_seconds and line.step_seconds is not None]
        steps = np.array([line.step for line in whole], dtype=np.float64)
        parts = np.array([line.part_seconds for line in whole], dtype=np.float64).reshape(-1, len(_PARTS))
        seconds = np.array([line.step_seconds for line in whole], dtype=np.float64)
        series = {label: Series(steps, parts[:, column]) for column, label in enumerate(_PARTS)}
        series["other"] = Series(steps, np.maximum(0.0, seconds - parts.sum(axis=1)))
        lines = [Line(index, label, "area", stretch_means(one, _SPLIT_STRETCHES)) for label, one in series.items()]
        title = "Where a step's time goes" + (f": {run.name}" if len(runs) > 1 else "")
        made.append(Chart(f"split-{index}", title, "s", lines, note=_shares(series)))
    return made


def _shares(series: Mapping[str, Series]) -> str:
    total = sum(float(one.values.sum()) for one in series.values())
    if not total:
        return ""
    shares = ", ".join(f"{label} {one.values.sum() / total:.1%}" for label, one in series.items())
    return f"Over the run: {shares}."


def _histograms(runs: Sequence[ReportedRun]) -> list[Chart]:
    made = []
    for key, title in (("lengths", "Lengths of training examples"), ("targets", "Target tokens of training examples")):
        seen: list[Histograms] = []
        lines = []
        for index, run in enumerate(runs):
            found = run.record.histograms
            if found and found not in seen:
                seen.append(found)
                counts = np.array(getattr(found, key), dtype=np.float64)
                edges = np.arange(len(counts), dtype=np.float64) * found.bin_tokens
                lines.append(Line(index, "examples", "bars", Series(edges, counts)))
        widths = sorted({found.bin_tokens for found in seen})
        tokens = " or ".join(f"{width} token{'s' if width > 1 else ''}" for width in widths)
        made.append(Chart(key, title, "", lines, x="tokens", note=f"Examples in every {tokens}."))
    return made


def _further(runs: Sequence[ReportedRun]) -> list[Chart]:
    """Figures that this page has no word for: a later version's, or a user's own."""
    keys = sorted({key for run in runs for line in run.history.steps[-1:] for key in figures(line)} - _NOT_FURTHER)
    made = []
    for key in keys[:_MOST_FURTHER]:
        series = [extremes(read_series(run.history.steps, _named(key))) for run in runs]
        lines = [Line(index, "", "line", one) for index, one in enumerate(series)]
        if any(len(set(line.series.values.tolist())) > 1 for line in lines):
            title = key.replace("_", " ").replace("/", ": ").capitalize()
            made.append(Chart(f"further-{key.replace('/', '-')}", title, "", lines))
    return made


def _named(key: str) -> Callable[[StepLine | ValidationLine], Any]:
    return lambda line: getattr(line, key, line.extra.get(key))


def _numbers(values: Any, digits: int) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values]
