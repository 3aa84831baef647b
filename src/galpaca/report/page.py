"""One HTML file with everything in it."""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from galpaca import __version__
from galpaca.formatting import format_moment
from galpaca.report import tables
from galpaca.report.charts import Chart, charts, clock
from galpaca.report.formulas import with_formulas
from galpaca.report.head import head_rows
from galpaca.report.run import ReportedRun
from galpaca.report.series import STRETCHES
from galpaca.runs.standings import best_of

# By it one knows the file again, and may replace it.
GENERATOR = "galpaca report"


def render(runs: Sequence[ReportedRun]) -> str:
    """The page of one run, or of several drawn over each other."""
    shown = charts(runs)
    return fill(
        "page.html",
        styles=["uplot.min.css", "page.css"],
        scripts=["uplot.min.js", "page.js"],
        generator=GENERATOR,
        title=" and ".join(run.name for run in runs) if len(runs) < 3 else f"{len(runs)} runs",
        runs=runs,
        charts=shown,
        tables=tables,
        head_rows=head_rows,
        best=best_of([run.standing for run in runs]),
        has_samples=any(run.samples for run in runs),
        common_cards=list(dict.fromkeys(card.label for run in runs for card in tables.cards(run))),
        card_values=lambda run: {card.label: card.value for card in tables.cards(run)},
        loop_index=runs.index,
        most_points=f"{2 * STRETCHES:,}",
        version=__version__,
        written=format_moment(max(run.read_at for run in runs)),
        data=_script_json({"runs": [_facts(run) for run in runs], "charts": [chart.to_json() for chart in shown]}),
        differences=tables.config_differences(runs) if len(runs) > 1 else None,
        chart_tables={chart.id: tables.chart_table(chart, runs) for chart in shown},
        summary=lambda chart: _summary(chart, runs),
    )


def fill(page: str, *, styles: Sequence[str], scripts: Sequence[str], **values: Any) -> str:
    """A page of its template and the assets named; whatever text is put in is escaped."""
    import jinja2

    strict = jinja2.StrictUndefined
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=strict)
    environment.filters["formulas"] = with_formulas
    texts = [_asset(name) for name in scripts]
    return environment.from_string(_asset(page)).render(
        styles=[_asset(name) for name in styles], scripts=texts, script_hashes=[_hash(text) for text in texts], **values
    )


def _facts(run: ReportedRun) -> dict[str, Any]:
    """What the plots need besides their lines."""
    resumed = [start.step for start in run.starts if start.step]
    return {"name": run.name, "clock": clock(run), "resumed": resumed}


def _summary(chart: Chart, runs: Sequence[ReportedRun]) -> str:
    """A plot in a sentence for a screen reader."""
    parts = []
    for line in chart.lines:
        if len(line.series) and line.look != "raw":
            values = line.series.values
            name = " ".join(filter(None, [runs[line.run].name if len(runs) > 1 else "", line.label]))
            span = f"between {values.min():.4g} and {values.max():.4g}"
            parts.append(f"{name} from {values[0]:.4g} to {values[-1]:.4g}, {span}".strip())
    return f"{chart.title}{f' in {chart.unit}' if chart.unit else ''}: {'; '.join(parts)}. Arrow keys read values."


def _script_json(content: Any) -> str:
    """JSON that no text in it can end early, as ``</script>`` or ``<!--`` would."""
    text = json.dumps(content, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return (resources.files("galpaca.report") / "assets" / name).read_text(encoding="utf-8")
