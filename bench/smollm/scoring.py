"""Right or wrong: short answers beside references, and two models' answers to the same questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from math import comb, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

from galpaca.data.categories import in_order
from galpaca.estimate.bootstrap import LEVEL, Estimate, paired_bootstrap

# Of the verdicts and figures: greater as soon as the same answers get others.
VERSION = 2
# Up to so many letters capitals count: "Au" is gold, and "au" is French.
_LETTERS_OF_A_SYMBOL = 2
_LIST_MARK = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+")
# Not behind an initial, as in "Neil A. Armstrong", and not where a colon announces the next line.
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)\s+|(?<![:\n])\n+")


class Question(NamedTuple):
    """A question, and every answer that is right."""

    category: str
    instruction: str
    references: Sequence[str]


def is_right(answer: str, references: Sequence[str]) -> bool:
    """Whether one of the references stands in the answer as a word or number of its own."""
    return any(_stands_in(reference, answer) for reference in references)


def first_sentence(answer: str) -> str:
    """Of an answer of any length what it says first, so that a longer one has no more chances."""
    return _END_OF_SENTENCE.split(_LIST_MARK.sub("", answer.strip(), count=1), maxsplit=1)[0]


def _stands_in(reference: str, answer: str) -> bool:
    if reference[0].isdigit():
        return re.search(_number(reference), answer, re.IGNORECASE) is not None
    flags = 0 if len(reference) <= _LETTERS_OF_A_SYMBOL and reference.isalpha() else re.IGNORECASE
    return re.search(rf"(?<!\w){re.escape(reference)}(?!\w)", answer, flags) is not None


def _number(reference: str) -> str:
    """A number that is no part of another one, such as 7 in 1.7, 7,000, -7 or 1/7; a unit's letter may follow: 100C."""
    return rf"(?<![\w/-])(?<![−–])(?<!\d[.,]){re.escape(reference)}(?![^\WA-Za-z]|[A-Za-z]\w|[.,/]\d)"


def shares(categories: Sequence[str], right: Sequence[Sequence[bool]]) -> list[dict[str, Any]]:
    """For all questions and for each category: of each model the share of right answers with Wilson's interval, and the
    difference to the first model's with a bootstrap interval, for which both models' questions are drawn together.

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
    for number, difference in enumerate(found.differences):
        count = int(sum(values[number]))
        row: dict[str, Any] = {"right": count, "share": asdict(wilson(count, len(chosen)))}
        if number:
            row["difference"] = {**asdict(difference), "sign": difference.sign}
            row["changed"] = changes([right[0][i] for i in chosen], [right[number][i] for i in chosen])
        rows.append(row)
    return rows


def wilson(right: int, count: int) -> Estimate:
    """A share with Wilson's interval, which has a width even where all or none are right."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, shrunk = right / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / shrunk
    half = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / shrunk
    # Without rounding's rest at the ends.
    return Estimate(share, middle - half if right else 0.0, middle + half if right < count else 1.0)


def changes(first: Sequence[bool], other: Sequence[bool]) -> dict[str, float]:
    """How many questions only one of two models has right, and McNemar's exact p of that (two-sided)."""
    lost = sum(one and not two for one, two in zip(first, other, strict=True))
    gained = sum(two and not one for one, two in zip(first, other, strict=True))
    count = lost + gained
    tail = sum(comb(count, i) for i in range(min(lost, gained) + 1)) / 2**count
    return {"gained": gained, "lost": lost, "p": min(1.0, 2 * tail)}
