"""``galpaca export``: any checkpoint of a run, whoever wrote it, as the folder that anyone can load."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import command
from safetensors.torch import load_file
from transformers import OPTConfig, OPTForCausalLM

from galpaca.cli import main

IDS = torch.arange(5, 60)[None]


def export(*arguments: object) -> None:
    assert main(["export", *map(str, arguments)]) == 0


def trained(checkpoint: Path, dtype: torch.dtype = torch.float32) -> OPTForCausalLM:
    """The model of a checkpoint, its weights put together from the ranks' files, and rounded."""
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    flat = {name: torch.full((math.prod(shape),), math.nan) for name, shape in manifest["parameters"].items()}
    for path in checkpoint.glob("*.safetensors"):
        for key, values in load_file(path).items():
            kind, _, place = key.partition("/")
            name, _, start = place.rpartition("/")
            if kind == "weight":
                flat[name][int(start) : int(start) + len(values)] = values
    model = OPTForCausalLM(OPTConfig.from_pretrained(checkpoint.parents[1] / "base")).eval().to(dtype)
    for name, parameter in model.named_parameters():
        parameter.data = flat[name].view(parameter.shape).to(dtype)
    return model


def assert_logits_equal(folder: Path, model: OPTForCausalLM) -> None:
    loaded: Any = OPTForCausalLM.from_pretrained(folder, dtype=model.dtype, output_loading_info=True)
    released, report = loaded
    assert not any(report.values()), report
    assert torch.equal(released.eval()(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_logits_are_those_of_the_checkpoint_in_its_dtype(run: Path, tmp_path: Path, dtype: str) -> None:
    export(run, tmp_path / "model", "--dtype", dtype)
    assert_logits_equal(tmp_path / "model", trained(run / "checkpoints" / "step-00000004", getattr(torch, dtype)))
    assert json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["dtype"] == dtype


def test_export_writes_what_training_wrote(run: Path, tmp_path: Path) -> None:
    """Byte for byte, but for the folder's name in the card."""
    export(run, tmp_path / "model")
    names = sorted(path.name for path in (run / "model").iterdir())
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == names
    for name in names:
        ours, theirs = ((folder / name).read_bytes() for folder in (tmp_path / "model", run / "model"))
        if name == "README.md":
            ours = ours.replace(str(tmp_path / "model").encode(), str(run / "model").encode())
        assert ours == theirs, name


def test_shards_load(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "model", "--shard-size", "0.0001", "--max-new-tokens", "7")
    shards = list((tmp_path / "model").glob("model-*-of-*.safetensors"))
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert len(shards) > 2
    assert set(index["weight_map"].values()) == {path.name for path in shards}
    tensors = {name: values for path in shards for name, values in load_file(path).items()}
    assert tensors.keys() == index["weight_map"].keys()
    assert index["metadata"]["total_size"] == sum(values.nbytes for values in tensors.values())
    assert_logits_equal(tmp_path / "model", trained(run / "checkpoints" / "step-00000004"))
    settings = json.loads((tmp_path / "model" / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["max_new_tokens"] == 7


def test_an_older_checkpoint_tells_of_its_own_steps(run: Path, tmp_path: Path) -> None:
    """From the run folder alone: the configuration, which names the first weights and the tokenizer, is not there."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("config.yaml", "model", "step-00000004"))
    export(copy / "checkpoints" / "step-00000002", tmp_path / "model")
    assert_logits_equal(tmp_path / "model", trained(copy / "checkpoints" / "step-00000002"))
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    second = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[1])
    assert f"{second['loss']:.4f} at the last" in card
    assert "| steps | 2 of 4 (" in card
    assert "| steps 1 to 2 | 2 processes, " in card


def test_the_newest_whole_checkpoint_is_taken(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "checkpoints" / "step-00000004" / "rank-00001.safetensors").unlink()
    export(copy, tmp_path / "model")
    assert "step-00000004: rank-00001.safetensors is missing" in capsys.readouterr().out
    assert_logits_equal(tmp_path / "model", trained(copy / "checkpoints" / "step-00000002"))


@pytest.mark.slow
def test_after_another_number_of_ranks(run: Path, tmp_path: Path, tokenizer_folder: Path) -> None:
    """Steps 1 and 2 on two ranks, 3 and 4 on one: the card tells of both, and the weights are the last ones'."""
    copy = tmp_path / "runs" / "test"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("model", "step-00000004"))
    records = run.parents[1] / "records.json"
    arguments = command(tmp_path, tokenizer_folder, records, "strategy=single", "checkpoint.every_steps=2")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    export(copy, tmp_path / "model", "--dtype", "float16")
    assert_logits_equal(tmp_path / "model", trained(copy / "checkpoints" / "step-00000004", torch.float16))
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\| steps 1 to 2 \| 2 processes, .*: [0-9.]+ s \|", card)
    assert re.search(r"\| steps 3 to 4 \| 1 process, .*: [0-9.]+ s \|", card)


def test_a_model_is_overwritten_on_request(run: Path, tmp_path: Path) -> None:
    for arguments in (("--shard-size", "0.0001"), ("--overwrite",)):
        export(run, tmp_path / "model", *arguments)
    assert [path.name for path in (tmp_path / "model").glob("*.safetensors*")] == ["model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
