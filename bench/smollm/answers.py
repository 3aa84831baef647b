"""Of the page: right and wrong answers to short questions, and longer answers side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.smollm.cells import difference, interval, one_line, table, wrapped

_PERCENT = ".0%"


def questions_section(found: Mapping[str, Any]) -> list[str]:
    """The shares of right answers, and under a fold every question with its verdicts."""
    total, at_once = found["shares"][0], found["shares_at_once"][0]
    rows = [_shares(row, row["category"]) for row in found["shares"]]
    rows += _compared(total, "all")
    rows += [_shares(at_once, "all, first sentence"), *_compared(at_once, "first sentence")]
    rows += [["words of an answer, mean", "", *(f"{words:.0f}" for words in found["mean_words"])]]
    return [
        "## Short questions, right or wrong",
        "",
        *wrapped(
            f"{total['questions']} questions of bench/smollm/questions.jsonl, greedy answers of at most "
            f"{found['max_new_tokens']} tokens. An answer is right if one of the question's references stands in it as "
            "a word of its own: an answer that names several things may be right by accident, and a long one names "
            "more. So the first sentence of each answer is judged by itself, too. Intervals of shares are Wilson's, "
            "those of differences are bootstrap intervals."
        ),
        "",
        *table(["category", "questions", *found["models"]], rows),
        "",
        "<details><summary>Every question</summary>",
        "",
        *table(["question", "reference", *found["models"]], [_verdicts(one) for one in found["questions"]]),
        "",
        "</details>",
    ]


def _shares(row: Mapping[str, Any], name: str) -> list[object]:
    cells = [f"{one['right']}, {interval(one['share'], _PERCENT)}" for one in row["models"]]
    return [f"**{name}**", row["questions"], *cells]


def _compared(row: Mapping[str, Any], name: str) -> list[list[object]]:
    """Of each model but the first its difference to it, and how many questions made that."""
    others = row["models"][1:]
    counts = [one["changed"] for one in others]
    changes = [f"{one['gained']} gained, {one['lost']} lost, p = {one['p']:.2g}" for one in counts]
    return [
        [f"difference, {name}", "", "", *(difference(one["difference"], "+.0%") for one in others)],
        [f"changed, {name} (McNemar)", "", "", *changes],
    ]


def _verdicts(question: Mapping[str, Any]) -> list[str]:
    """``later`` where the reference does not stand in the first sentence."""
    verdicts = zip(question["right"], question["right_at_once"], strict=True)
    marks = [("right" if at_once else "later") if right else "–" for right, at_once in verdicts]
    return [one_line(question["instruction"]), one_line(question["references"][0]), *marks]


def answers_section(losses: Mapping[str, Any]) -> list[str]:
    """What each model answers to the same prompts."""
    labels = [one["label"] for one in losses["models"]]
    lines = [
        "## Answers side by side",
        "",
        *wrapped(
            f"Some of galpaca's built-in prompts, which are in no record that a tuning has read; greedy, cut after "
            f"{losses['prompts']['max_new_tokens']} tokens."
        ),
    ]
    for question in losses["questions"]:
        asked = " / ".join(filter(None, (question["instruction"], question["input"])))
        rows = [
            [label, one_line(given["answer"]) + ("" if given["finish"] == "end" else " ...")]
            for label, given in zip(labels, question["answers"], strict=True)
        ]
        lines += ["", f"**{one_line(asked)}**", "", *table(["model", "answer"], rows)]
    return lines
