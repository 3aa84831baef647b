"""The figures of a comparison, from numbers small enough for a pencil."""

import math

import numpy as np
import pytest

from galpaca.inference.figures import Measured, answer_rows, loss_rows, perplexity

MEASURED = Measured(
    categories=["a", "b", "a"],
    nll=np.array([[4.0, 9.0, 2.0], [2.0, 12.0, 1.0]]),
    tokens=np.array([[2.0, 3.0, 1.0], [4.0, 3.0, 1.0]]),
    num_bytes=np.array([10.0, 20.0, 0.0]),
)


def test_losses_are_weighted_by_tokens_and_by_bytes() -> None:
    every, of_a, of_b = loss_rows(MEASURED)
    assert [row["category"] for row in (every, of_a, of_b)] == ["all", "a", "b"]
    assert [row["records"] for row in (every, of_a, of_b)] == [3, 2, 1]
    assert every["models"][0]["nats_per_token"]["value"] == 15 / 6
    assert every["models"][1]["nats_per_token"]["value"] == 15 / 8
    assert every["models"][1]["bits_per_byte"]["value"] == pytest.approx(15 / math.log(2) / 30)
    assert of_a["models"][1]["nats_per_token"]["difference"]["value"] == pytest.approx(3 / 5 - 6 / 3)
    assert of_b["models"][1]["nats_per_token"]["difference"] == {
        "value": 1.0,
        "low": None,
        "high": None,
        "sign": "open",
    }
    assert "difference" not in every["models"][0]["nats_per_token"]
    assert every["models"][1]["target_tokens"] == 8


def test_outputs_without_bytes_have_no_bits_a_byte() -> None:
    [row] = loss_rows(Measured(["a"], np.ones((1, 1)), np.ones((1, 1)), np.zeros(1)))
    assert row["models"][0]["bits_per_byte"] is None
    assert row["models"][0]["nats_per_token"]["value"] == 1.0


def test_answers_are_averaged_by_category() -> None:
    line = {"answer": "x", "finish": "end", "tokens": 4, "words": 2, "seconds": 1.0}
    cut = {"answer": " ", "finish": "length", "tokens": 8, "words": 0, "seconds": 3.0}
    every, of_a, of_b = answer_rows(["a", "b"], [[line, cut]])
    assert every["models"] == [{"mean_tokens": 6.0, "mean_words": 1.0, "mean_seconds": 2.0, "ended": 1, "empty": 1}]
    assert of_a["models"][0]["ended"] == 1
    assert of_b["models"][0]["empty"] == 1


def test_one_category_is_reported_once() -> None:
    assert [row["category"] for row in answer_rows(["(none)"], [])] == ["all"]


def test_a_perplexity_beyond_numbers_is_none() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(1_000.0) is None
