"""Results in a card: put in, replaced, and nothing else touched."""

from typing import Any

import yaml

from galpaca.data.categories import WITHOUT
from galpaca.release.evaluation import card_with_results

CARD = "---\nlicense: apache-2.0\ntags:\n- opt\n---\n\n# demo\n\n## Results\n\nx\n\n## Intended use and limits\n\ny\n"


def of_records(loss: float) -> dict[str, Any]:
    row = {
        "category": "all",
        "records": 40,
        "target_tokens": 900,
        "loss": {"value": loss, "low": loss - 0.1, "high": loss + 0.1},
        "perplexity": 2.7,
        "bits_per_byte": None,
    }
    return {"kind": "records", "model": {"template": "alpaca"}, "records": {"source": "held|out.json"}, "rows": [row]}


def of_task(**changes: Any) -> dict[str, Any]:
    row = {
        "task": "science",
        "metric": "acc",
        "filter": None,
        "value": 0.25,
        "stderr": 0.05,
        "examples": 80,
        "shots": 0,
        "higher_is_better": True,
    }
    settings = {"task": "science", "instruct": False, "limit": 80, "num_fewshot": None, "lm_eval": "0.4"}
    return {"kind": "tasks", "model": {"template": "alpaca"}, "settings": {**settings, **changes}, "rows": [row]}


def matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_results_come_before_the_limits_and_leave_the_rest_as_it_was() -> None:
    card = card_with_results(CARD, "demo", [of_records(1.0), of_task()])
    message = "| held\\|out.json | loss (perplexity) | 1.0000 (2.7) | 0.9000 to 1.1000 | 40 | with prompt template |"
    assert message in card
    assert "| science | acc | 0.2500 | ± 0.0500 | 80 | 0 shots, plain text, first 80 only, lm-eval 0.4 |" in card
    assert "| measured on | figure | value | 95 % interval, or standard error | examples | how |" in card
    assert card.index("## Results") < card.index("## Evaluation") < card.index("## Intended use")
    begin, end = card.index("<!-- galpaca"), card.rindex("-->")
    assert card[begin:].startswith("<!-- galpaca evaluate: begin -->\n## Evaluation")
    assert card[card.index("\n\n# demo") : begin] + card[end + 5 :] == CARD[CARD.index("\n\n# demo") :]
    assert matter(card)["license"] == "apache-2.0"
    assert [entry["dataset"]["name"] for entry in matter(card)["model-index"][0]["results"]] == [
        "held|out.json",
        "science",
    ]


def test_again_replaces_what_was_reported() -> None:
    once = card_with_results(CARD, "demo", [of_records(1.0)])
    again = card_with_results(card_with_results(CARD, "demo", [of_records(3.0), of_task()]), "demo", [of_records(1.0)])
    assert again == once
    assert len(matter(again)["model-index"]) == 1


def test_entries_of_others_stay() -> None:
    others = [{"name": "theirs", "results": [{"task": {"type": "text-generation"}, "dataset": {}, "metrics": []}]}]
    head = yaml.safe_dump({"license": "mit", "model-index": others}, sort_keys=False)
    card = card_with_results(f"---\n{head}---\n# theirs\n", "ours", [of_task()])
    assert [model["name"] for model in matter(card)["model-index"]] == ["theirs", "ours"]


def test_a_card_without_front_matter_gets_its_table_at_the_end() -> None:
    card = card_with_results("# a model\n\ntext\n", "a", [of_task()])
    assert card.startswith("# a model\n\ntext\n\n<!-- galpaca evaluate: begin -->")
    assert card.endswith("<!-- galpaca evaluate: end -->\n")
    assert card_with_results(card, "a", [of_task()]) == card


def test_records_without_a_category_are_called_so() -> None:
    """The metadata said ``loss ((none))``."""
    results = of_records(1.0)
    results["rows"].append({**results["rows"][0], "category": WITHOUT})
    card = card_with_results(CARD, "demo", [results])
    (entry,) = matter(card)["model-index"][0]["results"]
    assert [metric["name"] for metric in entry["metrics"]] == ["loss (all)", "loss (no category)"]
    assert "(none)" not in card
