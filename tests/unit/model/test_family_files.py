"""What each family says of its files and its readers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FORMS, PLAIN_LLAMA, Sizes, Tiny
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from galpaca.errors import InputError
from galpaca.estimate.memory import num_parameters
from galpaca.model.configuration import described, recorded
from galpaca.model.families.known import family_of
from galpaca.model.families.llama import Llama
from galpaca.model.families.opt import OPT
from galpaca.model.folder_tensors import FolderTensors
from galpaca.model.spec import ModelSpec

SIZES = Sizes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model: Any = AutoModelForCausalLM.from_config(PLAIN_LLAMA.config(SIZES))
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_early_files_of_llama_hold_frequencies_that_are_no_weights(folder: Path) -> None:
    """They were unexpected weights, and the advice was to download them again."""
    file = folder / "model.safetensors"
    expected = FolderTensors(folder, Llama(), tied_head=True).shapes
    tensors = load_file(file)
    frequencies = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}
    save_file({**tensors, **frequencies}, file, {"format": "pt"})
    assert FolderTensors(folder, Llama(), tied_head=True).shapes == expected


def test_files_of_a_bare_llama_are_understood(folder: Path) -> None:
    file = folder / "model.safetensors"
    expected = FolderTensors(folder, Llama(), tied_head=True).shapes
    save_file({name.removeprefix("model."): one for name, one in load_file(file).items()}, file, {"format": "pt"})
    assert FolderTensors(folder, Llama(), tied_head=True).shapes == expected


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "su", "of next year"])
def test_rotations_that_nobody_has_looked_at_are_refused(kind: str, folder: Path) -> None:
    """One that transformers does not know ended in a stack trace, after the records were encoded."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["rope_parameters"] = {**content["rope_parameters"], "rope_type": kind, "factor": 2.0}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"rotary positions|cannot read"):
        described(ModelSpec(path=str(folder)))


@pytest.mark.parametrize("tiny", FORMS, ids=lambda tiny: tiny.name)
def test_parameters_are_counted_as_they_are(tiny: Tiny) -> None:
    config = tiny.config(SIZES)
    built = tiny.model(SIZES, std=0.1)
    if tiny.name.startswith("opt-"):
        pytest.skip("no published model of this form has to be estimated")
    assert num_parameters(tiny.family.architecture(config)) == sum(one.numel() for one in built.parameters())


class TestARecipe:
    def test_a_family_that_is_found_without_its_name_is_not_named(self, folder: Path) -> None:
        """The same run was refused where its family was first left out, and then named."""
        spec = ModelSpec(path=str(folder), family="llama")
        assert recorded(spec, Llama()).family is None
        own = ModelSpec(path=str(folder), family="my.module.Llama")
        assert recorded(own, Llama()).family == "my.module.Llama"
        random = ModelSpec(family="llama", tokenizer="x", **ONE)
        assert recorded(random, Llama()).family == "llama"
        assert recorded(ModelSpec(family="opt", tokenizer="x", **ONE), OPT).family is None

    def test_a_configuration_is_what_it_says_and_not_where_it_is(self, folder: Path, tmp_path: Path) -> None:
        """A run went on with other positions, and released them over weights that were trained with the first."""
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        digests = []
        for name, changes in (("a", {}), ("b", {}), ("c", {"rope_parameters": {"rope_theta": 5.0}})):
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps({**content, **changes}, indent=len(name)), encoding="utf-8")
            digests.append(recorded(ModelSpec(config=str(path), tokenizer="x"), Llama()).config)
        assert digests[0] == digests[1] != digests[2]
        assert recorded(ModelSpec(path=str(folder), config=str(tmp_path / "a.json")), Llama()).config is None


ONE: dict[str, Any] = dict.fromkeys(("num_layers", "hidden_size", "num_heads", "ffn_size", "max_positions"), 8)


def test_every_known_family_is_found_by_its_type() -> None:
    assert family_of("opt", "x") is OPT
    assert isinstance(family_of("llama", "x"), Llama)
