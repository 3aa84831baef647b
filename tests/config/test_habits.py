"""What people type from other training scripts is answered with the key that it is called here."""

import re
from functools import cache
from pathlib import Path

import hydra
import pytest
from configuration_keys import keys_of

from galpaca.app.config.composition import compose, register
from galpaca.app.config.habits import HABITS, check_arguments
from galpaca.app.config.schema import config_folder
from galpaca.errors import InputError

CONF = Path(config_folder())


@cache
def keys() -> frozenset[str]:
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        nodes = [hydra.compose("train", [f"tuning={name}", "+experiment=demo"]) for name in ("full", "lora", "qlora")]
    return frozenset(key for node in nodes for key in keys_of(node))


@pytest.mark.parametrize("name", HABITS)
def test_every_answer_names_keys_that_exist(name: str) -> None:
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    for key, value in re.findall(r"([a-z0-9_.]+)=(\S*)", HABITS[name].replace("{}", "VALUE")):
        if key in groups:
            assert value == "VALUE" or (CONF / key / f"{value}.yaml").is_file(), (key, value)
        else:
            assert key in keys(), key


@pytest.mark.parametrize("name", HABITS)
def test_no_habit_is_accepted(name: str) -> None:
    with pytest.raises(InputError) as caught:
        compose(["+experiment=demo", f"{name}=3"])
    assert "unknown configuration key" in str(caught.value)
    assert HABITS[name].format("3") in str(caught.value)


@pytest.mark.parametrize(
    ("words", "fixes"),
    [
        (["galpaca1b"], ["+experiment=galpaca1b"]),
        (["fsdp"], ["strategy=fsdp"]),
        (["--experiment", "galpaca1b"], ["+experiment=galpaca1b"]),
        (["--learning_rate", "1e-4", "--num-train-epochs=2"], ["optim.lr=1e-4", "trainer.max_epochs=2"]),
        (["-lr", "3"], ["optim.lr=3"]),
        (["--nonsense"], ["without dashes"]),
    ],
)
def test_words_that_are_no_overrides(words: list[str], fixes: list[str]) -> None:
    """Hydra complained about its grammar, or took ``--experiment`` for a flag of its own."""
    with pytest.raises(InputError) as caught:
        check_arguments(words)
    for fix in fixes:
        assert fix in str(caught.value)


def test_what_hydra_takes_passes() -> None:
    check_arguments(["+experiment=demo", "~model", "optim.lr=-1", "--cfg", "job", "-m", "--multirun", "data.path=a b"])


def test_unknown_keys_and_bad_values_are_reported_together() -> None:
    """Of three mistakes one was reported, and the next at the next try."""
    wrong = ["trainer.devices=two", "batch.exmaples=8", "data.val_fraction=5", "optim.learning_rate=1e-4"]
    with pytest.raises(InputError) as caught:
        compose(["+experiment=demo", *wrong])
    for said in ("trainer.devices: must be an integer", "batch.exmaples", "data.val_fraction", "optim.lr=1e-4"):
        assert said in str(caught.value)
