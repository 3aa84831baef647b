"""What was measured of a model, shown in its card: a table between marks, and metadata that the Hub reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from galpaca.data.categories import WITHOUT
from galpaca.formatting import format_or, markdown_row

_BEGIN, _END = "<!-- galpaca evaluate: begin -->", "<!-- galpaca evaluate: end -->"
_BEFORE = "## Intended use and limits"
# Of the entries in the front matter, ours are known by it.
_TASK_NAME = "galpaca evaluate"

Result = Mapping[str, Any]


def card_with_results(card: str, name: str, results: Sequence[Result]) -> str:
    """The card with all results in place of those that it had before.

    Args:
        card: text of README.md.
        name: name of the model, for the metadata.
        results: contents of the files in ``evaluation/``.
    """
    return _with_metadata(_with_table(card, results), name, results)


def _with_table(card: str, results: Sequence[Result]) -> str:
    section = f"{_BEGIN}\n## Evaluation\n\n{_table(results)}\n{_END}"
    begin, end = card.find(_BEGIN), card.find(_END)
    if 0 <= begin < end:
        return card[:begin] + section + card[end + len(_END) :]
    start = card.find(_BEFORE)
    if start >= 0:
        return f"{card[:start]}{section}\n\n{card[start:]}"
    return f"{card.rstrip()}\n\n{section}\n"


def _table(results: Sequence[Result]) -> str:
    lines = [
        "| measured on | figure | value | 95 % interval, or standard error | examples | how |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        cells_of = _of_records if result["kind"] == "records" else _of_task
        lines += [markdown_row(cells_of(result, row)) for row in result["rows"]]
    return "\n".join(lines)


def _of_records(result: Result, row: Result) -> list[str]:
    source = result["records"]["source"]
    dataset = source if row["category"] == "all" else f"{source}: {_category(row)}"
    low, high = row["loss"]["low"], row["loss"]["high"]
    how = "with prompt template" if result["model"]["template"] != "plain text" else "plain text"
    value = f"{row['loss']['value']:.4f} ({format_or(row['perplexity'], '.4g', '–')})"
    error = "" if low is None else f"{low:.4f} to {high:.4f}"
    return [dataset, "loss (perplexity)", value, error, f"{row['records']:,}", how]


def _category(row: Result) -> str:
    return "no category" if row["category"] == WITHOUT else str(row["category"])


def _of_task(result: Result, row: Result) -> list[str]:
    settings = result["settings"]
    how = [
        f"{row['shots']} shots" if row["shots"] is not None else "",
        "with prompt template" if settings["instruct"] else "plain text",
        f"first {settings['limit']:,} only" if settings["limit"] else "",
        f"lm-eval {settings['lm_eval']}",
    ]
    figure = row["metric"] + (f" ({row['filter']})" if row["filter"] else "")
    error = "" if row["stderr"] is None else f"± {row['stderr']:.4f}"
    examples = "" if row["examples"] is None else f"{row['examples']:,}"
    return [row["task"], figure, f"{row['value']:.4f}", error, examples, ", ".join(filter(None, how))]


def _with_metadata(card: str, name: str, results: Sequence[Result]) -> str:
    """The front matter with our entries in ``model-index``; a card without one, or an odd one, stays as it is."""
    if not card.startswith("---\n"):
        return card
    head, mark, rest = card[4:].partition("\n---\n")
    try:
        matter = yaml.safe_load(head)
    except yaml.YAMLError:
        return card
    if not mark or not isinstance(matter, dict):
        return card
    others = [model for model in matter.get("model-index") or [] if not _is_ours(model)]
    entries = [entry for result in results for entry in _entries(result)]
    ours = [{"name": name, "results": entries}] if entries else []
    matter["model-index"] = [*others, *ours]
    text = yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n{rest}"


def _is_ours(model: Any) -> bool:
    try:
        return any(entry["task"].get("name") == _TASK_NAME for entry in model["results"])
    except (AttributeError, KeyError, TypeError):
        return False


def _entries(result: Result) -> list[dict[str, Any]]:
    if result["kind"] == "records":
        source = result["records"]["source"]
        figures = [
            {"type": "loss", "value": row["loss"]["value"], "name": f"loss ({_category(row)})"}
            for row in result["rows"]
        ]
        return [_entry(source, figures)]
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        named = row["metric"] + (f" ({row['filter']})" if row["filter"] else "")
        by_task.setdefault(row["task"], []).append({"type": row["metric"], "value": row["value"], "name": named})
    return [_entry(task, figures) for task, figures in by_task.items()]


def _entry(dataset: str, figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation", "name": _TASK_NAME},
        "dataset": {"name": dataset, "type": dataset},
        "metrics": [dict(figure) for figure in figures],
    }
