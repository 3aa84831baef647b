"""The figures of a comparison: functions of numbers, by category, the first of which is all of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galpaca.data.categories import in_order
from galpaca.estimate.bootstrap import Estimate, Paired, paired_bootstrap

ALL = "all"
_NATS_A_BIT = math.log(2)


@dataclass(frozen=True)
class Measured:
    """Losses of M models on the same N records.

    Attributes:
        categories: N of them.
        nll: (M, N) nats, summed over a record's target tokens.
        tokens: (M, N) target tokens, the end of the answer among them.
        num_bytes: (N,) of the answers in UTF-8.
    """

    categories: Sequence[str]
    nll: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]
    num_bytes: npt.NDArray[np.float64]


def loss_rows(measured: Measured, *, seed: int = 0) -> list[dict[str, Any]]:
    """For all records and for each category: each model's loss a token and a byte, with its difference to the first.

    Args:
        seed: seed of the bootstrap.
    """
    rows = []
    for category, chosen in _groups(measured.categories):
        nll, tokens = measured.nll[:, chosen], measured.tokens[:, chosen]
        bits = nll / _NATS_A_BIT
        a_byte = np.broadcast_to(measured.num_bytes[chosen], bits.shape)
        a_token, of_bytes = paired_bootstrap(nll, tokens, seed=seed), paired_bootstrap(bits, a_byte, seed=seed)
        models = [
            {
                "target_tokens": int(tokens[m].sum()),
                "nats_per_token": _shown(a_token, m),
                "bits_per_byte": _shown(of_bytes, m),
            }
            for m in range(len(nll))
        ]
        rows.append({"category": category, "records": len(chosen), "models": models})
    return rows


def answer_rows(categories: Sequence[str], answers: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """For all prompts and for each category: what each model's answers are like, on average.

    Args:
        categories: category of each prompt.
        answers: answers of each model to each prompt, with ``tokens``, ``words``, ``seconds`` and ``finish``.
    """
    rows = []
    for category, chosen in _groups(categories):
        models = []
        for given in answers:
            some = [given[i] for i in chosen]
            means = {f"mean_{name}": sum(one[name] for one in some) / len(some) for name in _MEANS}
            ended = sum(one["finish"] == "end" for one in some)
            models.append({**means, "ended": ended, "empty": sum(not one["answer"].strip() for one in some)})
        rows.append({"category": category, "prompts": len(chosen), "models": models})
    return rows


_MEANS = ("tokens", "words", "seconds")


def perplexity(nats_per_token: float) -> float | None:
    """None where it is too large for a number."""
    return math.exp(nats_per_token) if nats_per_token < 700 else None


def _groups(categories: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    yield ALL, list(range(len(categories)))
    names = in_order(categories)
    for name in names if len(names) > 1 else []:
        yield name, [index for index, category in enumerate(categories) if category == name]


def _shown(paired: Paired | None, model: int) -> dict[str, Any] | None:
    if paired is None:
        return None
    difference: Estimate = paired.differences[model]
    mean = asdict(paired.means[model])
    return mean if model == 0 else {**mean, "difference": {**asdict(difference), "sign": difference.sign}}
