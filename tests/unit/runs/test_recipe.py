"""Recipes of every version: read under today's names, compared setting by setting."""

import json
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from galpaca.app.config.composition import compose
from galpaca.runs import recipe as module
from galpaca.runs.recipe import ADDED, FORMAT, FREE, RENAMED, Recipe, make_recipe, settings_of

ADAMW = "galpaca.training.optimizers.adamw.AdamW"
SEEDED = {
    "seed": 1,
    "optim": {"_target_": ADAMW, "lr": 2e-5, "fused": True},
    "strategy": {"_target_": "galpaca.training.strategies.ddp"},
}


def recipe_of(former: str | None = None, data: str = "new", **changes: object) -> Recipe:
    return make_recipe({**added(), **SEEDED, **changes}, data=data, tokenizer="t", former_data=former)


def added() -> dict[str, dict[str, object]]:
    """Keys that were added later, with their former values, by group."""
    groups: dict[str, dict[str, object]] = {}
    for key, value in ADDED.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = value
    return groups


def test_what_is_written_is_read() -> None:
    """Through JSON, in which tuples come back as lists."""
    recipe = recipe_of(optim={"_target_": ADAMW, "betas": (0.9, 0.999)})
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    assert again.changes_since(recipe) == recipe.changes_since(again) == []


def test_free_keys_are_no_part_of_it() -> None:
    """A key, or a whole group."""
    assert settings_of(SEEDED) == {"seed": 1, "optim._target_": ADAMW, "optim.lr": 2e-5}


def test_every_difference_is_shown() -> None:
    """Resumed with another seed, a run sees some examples twice and others never."""
    then = recipe_of(data="a" * 64)
    now = recipe_of(data="b" * 64, seed=2, optim={"_target_": ADAMW, "lr": 2e-5, "eps": 1e-8})
    assert now.changes_since(then) == [
        f"data.fingerprint: {'a' * 12} -> {'b' * 12}",
        "optim.eps: absent -> 1e-08",
        "seed: 1 -> 2",
    ]


def test_a_key_that_was_added_later_has_the_value_that_held_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDED", {"optim._target_": "adamw"})
    then = Recipe.from_json({"format": 2, "seed": 1})
    assert make_now({"seed": 1, "optim": {"_target_": "adamw"}}).changes_since(then) == []
    assert make_now({"seed": 1, "optim": {"_target_": "lion"}}).changes_since(then) == ["optim._target_: adamw -> lion"]
    assert make_now({"seed": 1}).changes_since(make_now({"seed": 1, "optim": {"_target_": "lion"}}))


def make_now(configuration: dict[str, object]) -> Recipe:
    recipe = make_recipe(configuration, data="", tokenizer="")
    return Recipe({key: value for key, value in recipe.settings.items() if "fingerprint" not in key})


def test_a_renamed_key_is_the_same_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDED", {})
    monkeypatch.setattr(module, "RENAMED", {"optim.learning_rate": "optim.lr"})
    then = Recipe.from_json({"optim.learning_rate": 2e-5})
    assert make_now({"optim": {"lr": 2e-5}}).changes_since(then) == []
    assert make_now({"optim": {"lr": 1e-5}}).changes_since(then) == ["optim.lr: 2e-05 -> 1e-05"]


class TestFormat1:
    """Its fingerprint was that of what the examples were made from."""

    THEN = Recipe.from_json({"seed": 1, "optim.lr": 2e-5, "data.fingerprint": "old", "tokenizer.fingerprint": "t"})

    def test_it_is_recognized_by_its_own_fingerprint(self) -> None:
        assert self.THEN.format == 1
        assert recipe_of(former="old").changes_since(self.THEN) == []

    @pytest.mark.parametrize("former", ["other", None])
    def test_other_data_are_refused(self, former: str | None) -> None:
        assert len(recipe_of(former=former).changes_since(self.THEN)) == 1

    def test_in_format_2_the_former_fingerprint_counts_for_nothing(self) -> None:
        """Else a run could go on with other examples that a changed encoder makes of the same file."""
        assert recipe_of(former="old", data="other").changes_since(recipe_of(former="old")) == [
            "data.fingerprint: new -> other"
        ]


@pytest.mark.parametrize("written", [FORMAT + 97, "2", None, [2]])
def test_a_later_format_or_none_at_all_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=re.escape(f"recipe format {written!r}, but this version reads")):
        Recipe.from_json({"format": written})


@pytest.fixture(scope="module")
def configuration() -> dict[str, object]:
    return compose(["+experiment=demo"])[0].values()


def test_the_tables_name_keys_that_there_are(configuration: dict[str, object]) -> None:
    """A line that names a key wrongly would do nothing."""
    dotted = {f"{group}.{key}" for group, values in configuration.items() if isinstance(values, dict) for key in values}
    free = [key for keys in FREE.values() for key in keys]
    assert len(free) == len(set(free))
    assert set(free) <= dotted | configuration.keys()
    settings = settings_of(configuration)
    assert ADDED.keys() <= settings.keys()
    assert set(RENAMED.values()) <= settings.keys()
    assert not RENAMED.keys() & settings.keys()


def test_the_docs_show_what_is_free() -> None:
    page = Path(REPOSITORY / "docs" / "run-folder.md").read_text(encoding="utf-8")
    rows = [f"| {what} | {', '.join(f'`{key}`' for key in keys)} |" for what, keys in FREE.items()]
    assert "\n".join(["| free to change | keys |", "|---|---|", *rows]) + "\n\n" in page
