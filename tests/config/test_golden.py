"""GALPACA as it was before there was any other family: its recipe, its defaults and its card, value by value.

The files were written by commit 64bbb9c. A recipe that changes is another recipe, and runs that were started with the
former are refused: a file changes by decision only, together with what made the change necessary.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from unit.release.test_card import FACTS

from galpaca.app.config.composition import compose
from galpaca.model.families.opt import OPT
from galpaca.release.card import model_card
from galpaca.runs.recipe import ADDED, Recipe, settings_of

GOLDEN = Path(__file__).parent / "golden"


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", ["galpaca67b", "galpaca67b_lora"])
def test_recipe_and_defaults(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    config, _ = compose([f"+experiment={name}"])
    config = config.on(OPT)
    settings = as_json(settings_of(config.recipe_values()))
    assert Recipe(settings).changes_since(Recipe.from_json({"format": 2, **golden["recipe"]})) == []
    assert {key: settings[key] for key in golden["recipe"]} == golden["recipe"]
    assert settings.keys() - golden["recipe"].keys() <= ADDED.keys()
    assert golden["machine"] == as_json(
        {
            "strategy": config.strategy.factory.values(),
            "devices": config.trainer.devices,
            "max_tokens": config.batch.max_tokens,
            "compute": vars(config.compute),
            "release": vars(config.release),
        }
    )


def test_card() -> None:
    assert model_card(FACTS) == (GOLDEN / "galpaca67b_card.md").read_text(encoding="utf-8")
