"""The page of a comparison, from its content alone."""

from typing import Any

import pytest

from galpaca.report.comparison import interval, render_comparison, signed, summary, ticks_between


def model(label: str) -> dict[str, Any]:
    return {
        "label": label,
        "name": f"runs/{label}",
        "parameters": 1_000,
        "template": "alpaca",
        "device_dtype": "cpu, float32",
        "batch_size": 8,
        "fingerprint": "f" * 64,
        "vocabulary": "v" * 64,
    }


def loss(value: float, difference: float | None = None) -> dict[str, Any]:
    def estimate(at: float) -> dict[str, Any]:
        return {"value": at, "low": at - 0.125, "high": at + 0.125}

    if difference is None:
        return estimate(value)
    sign = "lower" if difference < -0.125 else "higher" if difference > 0.125 else "open"
    return {**estimate(value), "difference": {**estimate(difference), "sign": sign}}


def content(*, comparable: bool = True, **changes: Any) -> dict[str, Any]:
    def row(category: str, difference: float) -> dict[str, Any]:
        both = [loss(2.0), loss(2.0 + difference, difference)]
        figures = [{"target_tokens": 50, "nats_per_token": one, "bits_per_byte": one} for one in both]
        return {"category": category, "records": 12, "models": figures}

    given = {"answer": "an answer", "finish": "end", "tokens": 3, "words": 2, "seconds": 0.5}
    means = {"mean_tokens": 3.0, "mean_words": 2.0, "mean_seconds": 0.5, "ended": 1, "empty": 0}
    return {
        "galpaca": "0",
        "written_at": "2026-11-24 10:00 UTC",
        "models": [model("base"), model("tuned")],
        "prompts": {"source": "prompts.jsonl", "sha256": "0", "count": 1, "max_new_tokens": 64},
        "answer_figures": [{"category": "all", "prompts": 1, "models": [means, means]}],
        "questions": [{"category": "prose", "instruction": "Do.", "input": "", "answers": [given, given]}],
        "records": {
            "source": "records.jsonl",
            "sha256": "0",
            "count": 36,
            "trained_on": {"base": None, "tuned": 3},
            "left_out": 0,
            "without_output": 0,
            "max_length": None,
            "tokens_are_comparable": comparable,
            "bootstrap": {"resamples": 2_000, "level": 0.95, "seed": 0},
            "loss": [row("all", -0.5), row("programming", -1.0), row("prose", 0.5), row("biology", 0.0)],
        },
        **changes,
    }


def test_what_is_better_and_worse_is_said() -> None:
    page = render_comparison(content())
    for message in ("lower: better", "higher: worse", "no difference shown", "−1.000", "[+0.375, +0.625]"):
        assert message in page
    assert summary(content())[1] == (
        "tuned",
        "1.500 nats per token  −0.500 [−0.625, −0.375] against base; "
        "of 3 categories better in 1, worse in 1, open in 1",
    )


def test_losses_of_other_tokens_are_not_compared_a_token() -> None:
    page = render_comparison(content(comparable=False))
    assert "cannot be compared" in page
    bytes_part, tokens_part = page.split('data-measure="nats_per_token"')
    assert "lower: better" in bytes_part
    assert "lower: better" not in tokens_part.split("</section>")[0]
    assert "hidden" in tokens_part[:20]
    assert summary(content(comparable=False))[0][1].startswith("2.000 bits per byte")


def test_whatever_a_text_holds_is_shown_as_text() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"
    given = {"answer": evil, "finish": "end", "tokens": 3, "words": 2, "seconds": 0.5}
    question = {"category": evil, "instruction": evil, "input": evil, "answers": [given, given]}
    page = render_comparison(content(questions=[question], models=[model(evil), model("tuned")]))
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "{{ 7 * 7 }}" in page
    assert page.count("<script>") == 1
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1 record has an empty output"), (2, "2 records have an empty output")]
)
def test_records_without_output_are_counted_in_words_that_agree(count: int, said: str) -> None:
    """It said "1 records have"."""
    lone = content()
    lone["records"]["without_output"] = count
    assert said in render_comparison(lone)


def test_without_records_there_is_no_loss() -> None:
    page = render_comparison(content(records=None))
    assert 'id="loss"' not in page
    assert "bootstrap" not in page
    assert summary(content(records=None))[0] == ("base", "2 words per answer")


def test_one_record_is_shown_without_an_interval() -> None:
    lone = content()
    for row in lone["records"]["loss"]:
        row["records"] = 1
        for one in row["models"]:
            for figure in (one["nats_per_token"], one["bits_per_byte"]):
                figure.update(low=None, high=None)
                if "difference" in figure:
                    figure["difference"].update(low=None, high=None, sign="open")
    page = render_comparison(lone)
    assert "few" in page
    assert "None" not in page


@pytest.mark.parametrize(("low", "high"), [(-0.1, 8.0), (0.0012, 0.0019), (-7.5, -6.9), (1e-9, 2e-9), (0, 1)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = ticks_between(low, high)
    assert 3 <= len(ticks) <= 12
    assert low <= ticks[0] + 1e-12
    assert ticks[-1] <= high + 1e-12


def test_signs_are_typeset() -> None:
    assert signed(-1.5) == "−1.500"
    assert interval({"low": -1.0, "high": 2.0}, signs=True) == "[−1.000, +2.000]"
    assert interval({"low": None, "high": None}) == ""
