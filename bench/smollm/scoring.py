"""Right or wrong: short answers beside references, and two models' answers to the same questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from math import comb
from typing import Any, NamedTuple

from galpaca.data.categories import in_order
from galpaca.estimate.bootstrap import paired_bootstrap

# Up to so many letters capitals count: "Au" is gold, and "au" is French.
_LETTERS_OF_A_SYMBOL = 2


class Question(NamedTuple):
    """A question, and every answer that is right."""

    category: str
    instruction: str
    references: Sequence[str]


def is_right(answer: str, references: Sequence[str]) -> bool:
    """Whether one of the references stands in the answer as a word or number of its own."""
    return any(_stands_in(reference, answer) for reference in references)


def _stands_in(reference: str, answer: str) -> bool:
    flags = 0 if len(reference) <= _LETTERS_OF_A_SYMBOL and reference.isalpha() else re.IGNORECASE
    # A number is not in the middle of another one, such as 7 in 1.7 or in 7,000.
    return re.search(rf"(?<!\w)(?<!\d[.,]){re.escape(reference)}(?!\w)(?![.,]\d)", answer, flags) is not None


def shares(categories: Sequence[str], right: Sequence[Sequence[bool]]) -> list[dict[str, Any]]:
    """For all questions and for each category: of each model the share of right answers with its interval, and the
    difference to the first model's, whose questions are drawn together.

    Args:
        categories: of each question.
        right: (models, questions).
    """
    groups = {"all": list(range(len(categories)))}
    groups |= {name: [i for i, one in enumerate(categories) if one == name] for name in in_order(categories)}
    return [{"category": name, "questions": len(some), "models": _of(right, some)} for name, some in groups.items()]


def _of(right: Sequence[Sequence[bool]], chosen: Sequence[int]) -> list[dict[str, Any]]:
    values = [[float(of_model[i]) for i in chosen] for of_model in right]
    found = paired_bootstrap(values, [[1.0] * len(chosen)] * len(values))
    assert found is not None, "a category has a question"
    rows = []
    for number, (mean, difference) in enumerate(zip(found.means, found.differences, strict=True)):
        row: dict[str, Any] = {"right": int(sum(values[number])), "share": asdict(mean)}
        if number:
            row["difference"] = {**asdict(difference), "sign": difference.sign}
            row["changed"] = changes([right[0][i] for i in chosen], [right[number][i] for i in chosen])
        rows.append(row)
    return rows


def changes(first: Sequence[bool], other: Sequence[bool]) -> dict[str, float]:
    """How many questions only one of two models has right, and McNemar's exact p of that (two-sided)."""
    lost = sum(one and not two for one, two in zip(first, other, strict=True))
    gained = sum(two and not one for one, two in zip(first, other, strict=True))
    count = lost + gained
    tail = sum(comb(count, i) for i in range(min(lost, gained) + 1)) / 2**count
    return {"gained": gained, "lost": lost, "p": min(1.0, 2 * tail)}
