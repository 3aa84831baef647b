"""Of the page: right and wrong answers to short questions, and longer answers side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.smollm.cells import difference, interval, one_line, table, wrapped

_PERCENT = ".0%"


def questions_section(found: Mapping[str, Any]) -> list[str]:
    """The shares of right answers, and under a fold every question with its verdicts."""
    rows = []
    for row in found["shares"]:
        cells = [f"{one['right']}, {interval(one['share'], _PERCENT)}" for one in row["models"]]
        rows.append([f"**{row['category']}**", row["questions"], *cells])
    total = found["shares"][0]
    differences = [difference(one["difference"], "+.0%") for one in total["models"][1:]]
    changes = [
        f"{one['changed']['gained']} gained, {one['changed']['lost']} lost, p = {one['changed']['p']:.2g}"
        for one in total["models"][1:]
    ]
    rows += [["difference, all", "", "", *differences], ["changed, all (McNemar)", "", "", *changes]]
    return [
        "## Short questions, right or wrong",
        "",
        *wrapped(
            f"{total['questions']} questions of bench/smollm/questions.jsonl, greedy answers of at most "
            f"{found['max_new_tokens']} tokens. An answer is right if one of the question's references stands in it as "
            "a word of its own: an answer that names several things may be right by accident."
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


def _verdicts(question: Mapping[str, Any]) -> list[str]:
    marks = ["right" if right else "–" for right in question["right"]]
    return [one_line(question["instruction"]), one_line(question["references"][0]), *marks]


def answers_section(losses: Mapping[str, Any]) -> list[str]:
    """What each model answers to the same prompts."""
    labels = [one["label"] for one in losses["models"]]
    lines = [
        "## Answers side by side",
        "",
        *wrapped(
            f"Some of galpaca's built-in prompts, which are in no record; greedy, cut after "
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
