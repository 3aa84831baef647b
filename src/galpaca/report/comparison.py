"""Several models side by side as one HTML file, of the figures that ``galpaca compare`` also writes as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from galpaca.formatting import format_count
from galpaca.report.page import fill

# By it one knows the file again, and may replace it.
GENERATOR = "galpaca compare"

MEASURES = {"nats_per_token": "nats per token", "bits_per_byte": "bits per byte"}
_FEW_RECORDS = 10
_MARGIN = 0.04
_TICKS = 6

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Mark:
    """One model's figure in a plot, in per cent of its width.

    Attributes:
        model: its index among the models.
        at: position of the value.
        left, width: position and width of its interval.
        description: it in words.
    """

    model: int
    at: float
    left: float
    width: float
    description: str


@dataclass(frozen=True)
class Plot:
    """Figures and their intervals, a row for each category.

    Attributes:
        rows: category and marks.
        ticks: place in per cent, and label.
        zero: place of zero in per cent, where it is drawn.
    """

    title: str
    note: str
    rows: Sequence[tuple[str, Sequence[Mark]]]
    ticks: Sequence[tuple[float, str]]
    zero: float | None


def render_comparison(content: Content) -> str:
    """The page. It loads nothing and runs nothing but its own script, whatever an answer holds."""
    labels = [model["label"] for model in content["models"]]
    records = content["records"]
    return fill(
        "comparison.html",
        styles=["page.css", "comparison.css"],
        scripts=["comparison.js"],
        generator=GENERATOR,
        title=_and(labels) if len(labels) < 4 else f"{len(labels)} models",
        content=content,
        labels=labels,
        records=records,
        measures=_measures(records) if records else [],
        measure_names=MEASURES,
        plots={measure: _plots(content, measure) for measure in MEASURES} if records else {},
        cards=_cards(content),
        categories=list(dict.fromkeys(question["category"] for question in content["questions"])),
        few=_FEW_RECORDS,
        figure=_figure,
        interval=interval,
        signed=signed,
        verdict=_VERDICTS.get,
        count=format_count,
        same=lambda question: len({given["answer"] for given in question["answers"]}) == 1,
        finish=_FINISHES.get,
    )


def summary(content: Content) -> list[tuple[str, str]]:
    """What the terminal shows: each model's loss, or else how long its answers are."""
    return [(card["label"], f"{card['value']} {card['unit']}  {card['more']}".strip()) for card in _cards(content)]


_VERDICTS = {"lower": "lower: better", "higher": "higher: worse", "open": "no difference shown"}
_FINISHES = {"length": "truncated at the token limit", "positions": "truncated at the context length"}


def _measures(records: Content) -> list[str]:
    """The one to read first comes first."""
    return list(MEASURES) if records["tokens_are_comparable"] else list(reversed(MEASURES))


def _cards(content: Content) -> list[dict[str, Any]]:
    records = content["records"]
    if not records:
        of_all = content["answer_figures"][0]["models"]
        return [
            {"label": one["label"], "value": f"{given['mean_words']:,.0f}", "unit": "words per answer", "more": ""}
            for one, given in zip(content["models"], of_all, strict=True)
        ]
    measure = _measures(records)[0]
    unit, cards = MEASURES[measure], []
    for index, one in enumerate(content["models"]):
        figure = records["loss"][0]["models"][index][measure]
        value = "–" if figure is None else _figure(figure["value"])
        more = _more(content, index, measure)
        cards.append({"label": one["label"], "value": value, "unit": unit, "more": more})
    return cards


def _more(content: Content, index: int, measure: str) -> str:
    rows = content["records"]["loss"]
    if index == 0 or rows[0]["models"][index][measure] is None:
        return ""
    text = f"{_difference(rows[0]['models'][index][measure]['difference'])} against {content['models'][0]['label']}"
    figures = [row["models"][index][measure] for row in rows[1:]]
    signs = [figure["difference"]["sign"] for figure in figures if figure]
    words = [f"{word} in {signs.count(sign)}" for sign, word in _SHORT.items() if sign in signs]
    return text + (f"; of {len(signs)} categories {', '.join(words)}" if signs else "")


_SHORT = {"lower": "better", "higher": "worse", "open": "open"}


def _difference(difference: Content) -> str:
    return f"{signed(difference['value'])} {interval(difference, signs=True)}".strip()


def _plots(content: Content, measure: str) -> list[Plot]:
    records = content["records"]
    unit = MEASURES[measure]
    first = content["models"][0]["label"]
    values = [(row["category"], [one[measure] for one in row["models"]]) for row in records["loss"]]
    plots = [_plot(f"Loss, {unit}", "Left is better.", values, content, from_zero=False)]
    if measure == "bits_per_byte" or records["tokens_are_comparable"]:
        differences = [(category, [one and one.get("difference") for one in figures]) for category, figures in values]
        note = f"Left of the line is better than {first}."
        plots.append(_plot(f"Difference to {first}", note, differences, content, from_zero=True))
    return plots


def _plot(
    title: str, note: str, values: Sequence[tuple[str, Sequence[Content | None]]], content: Content, *, from_zero: bool
) -> Plot:
    shown = [one for _, figures in values for one in figures if one]
    ends = [end for one in shown for end in (one["value"], one["low"], one["high"]) if end is not None]
    low, high = min([*ends, *([0.0] if from_zero else [])]), max([*ends, *([0.0] if from_zero else [])])
    span = (high - low) or 1.0
    low, high = low - _MARGIN * span, high + _MARGIN * span

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 3)

    def mark(model: int, one: Content) -> Mark:
        left = one["value"] if one["low"] is None else one["low"]
        right = one["value"] if one["high"] is None else one["high"]
        value = signed(one["value"]) if from_zero else _figure(one["value"])
        label = f"{content['models'][model]['label']}: {value} {interval(one, signs=from_zero)}"
        return Mark(model, place(one["value"]), place(left), place(right) - place(left), label.strip())

    rows = [(category, [mark(m, one) for m, one in enumerate(figures) if one]) for category, figures in values]
    ticks = [(place(tick), f"{tick:.6g}") for tick in ticks_between(low, high)]
    return Plot(title, note, rows, ticks, place(0.0) if from_zero else None)


def ticks_between(low: float, high: float) -> list[float]:
    """A few round numbers, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _figure(value: float) -> str:
    """To four digits, and never fewer than three decimals where a difference would be lost."""
    return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.4g}"


def signed(value: float) -> str:
    return f"{value:+,.3f}".replace("-", "−")


def interval(figure: Content, *, signs: bool = False) -> str:
    """``[1.02, 1.31]``; empty where there is none."""
    if figure["low"] is None:
        return ""
    text_of = signed if signs else _figure
    return f"[{text_of(figure['low'])}, {text_of(figure['high'])}]"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
