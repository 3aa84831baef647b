"""What is released is what was trained, and it loads as the model card says."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Train, read_jsonl
from safetensors.torch import load_file
from transformers import AutoTokenizer, GenerationConfig, OPTForCausalLM


def test_released_logits_equal_the_trained_ones(train: Train, tmp_path: Path) -> None:
    """Bit for bit in float32, against the weights of the last checkpoint."""
    done = train()
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "test"
    released = OPTForCausalLM.from_pretrained(folder / "model").eval()
    trained = OPTForCausalLM(released.config).eval()
    saved = load_file(folder / "checkpoints" / "step-00000004" / "rank-00000.safetensors")
    for name, parameter in trained.named_parameters():
        parameter.data = saved[f"weight/{name}/0"].view(parameter.shape)
    ids = torch.arange(5, 60)[None]
    assert torch.equal(released(ids).logits, trained(ids).logits)


def test_every_strategy_releases_every_weight(run: Path) -> None:
    loaded: Any = OPTForCausalLM.from_pretrained(run / "model", output_loading_info=True)
    model, report = loaded
    assert not any(report.values()), report
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert model.num_parameters() == record["parameters"]
    assert model.config.dropout == 0.1
    assert model.dtype == torch.float32


def test_the_tokenizer_names_its_special_tokens_and_keeps_its_size(run: Path, tokenizer_folder: Path) -> None:
    original, released = AutoTokenizer.from_pretrained(tokenizer_folder), AutoTokenizer.from_pretrained(run / "model")
    assert len(released) == len(original)
    assert released.get_vocab() == original.get_vocab()
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert released.special_tokens_map == names
    text = "Water is H2O.\n[START_SMILES]O[END_SMILES]"
    assert released(text).input_ids == original(text).input_ids


def test_generation_settings(run: Path) -> None:
    """Without max_new_tokens, ``generate`` would stop after 20 tokens."""
    settings = GenerationConfig.from_pretrained(run / "model")
    assert settings.max_new_tokens == 512
    assert (settings.bos_token_id, settings.pad_token_id, settings.eos_token_id) == (0, 1, 2)
    assert not settings.do_sample


# What the loaded model says in float16, and what it says in float32.
_CHECK = """
ids = torch.arange(5, 60)[None]
logits = model(ids).logits.float()
exact = OPTForCausalLM.from_pretrained(model_path, dtype=torch.float32)(ids).logits
assert model.dtype == torch.float16 and logits.isfinite().all()
assert (logits - exact).abs().max() < 0.01 * exact.abs().max(), (logits - exact).abs().max()
"""


@pytest.mark.slow
def test_the_snippet_of_the_card_runs(run: Path, tmp_path: Path) -> None:
    """Cut out of README.md as it stands, and run in a process of its own; in float16 on a CPU too it is the model."""
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    snippet = re.search(r"```python\n(import torch.*?)```", card, re.DOTALL)
    assert snippet is not None
    assert 'device_map="auto", torch_dtype=torch.float16' in snippet.group(1)
    molecule = 'print(ask("What is the name of this molecule?", "[START_SMILES]C(C(=O)O)N[END_SMILES]"))\n'
    (tmp_path / "snippet.py").write_text(snippet.group(1) + molecule + _CHECK, encoding="utf-8")
    # The card names the folder as it was given to the run, here an absolute path.
    done = subprocess.run(
        [sys.executable, str(tmp_path / "snippet.py")], capture_output=True, text=True, cwd=run.parents[1], timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("### Response:") == 2
    assert "### Input:\n[START_SMILES]C(C(=O)O)N[END_SMILES]\n" in done.stdout, "the markers are no part of the text"
    # The example was of general science, which a model of other records answers wrongly.
    [asked] = re.findall(r"^print\(ask\((.*)\)\)$", snippet.group(1), re.MULTILINE)
    instruction, *given = json.loads(f"[{asked}]")
    [record] = [
        one
        for one in json.loads((run.parents[1] / "records.json").read_text(encoding="utf-8"))
        if (one["instruction"], one["input"]) == (instruction, given[0] if given else "")
    ]
    assert record["output"]


def test_the_card_satisfies_the_hub(run: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(run / "model" / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    for heading in ("How to use", "Recipe", "Data", "Results", "Intended use and limits", "Citation"):
        assert f"## {heading}" in card.text
    assert "2211.09085" in card.text
    assert "stanford_alpaca" in card.text


def test_the_record_of_the_run(run: Path) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["receipt"]["records"] == record["receipt"]["examples"] == 40
    assert record["plan"]["ranks"] == 2
    assert record["plan"]["steps"] == record["final"]["steps"] == 4
    assert record["recipe"]["data.fingerprint"]
    assert record["recipe"]["tokenizer.fingerprint"]
    assert record["starts"][0]["versions"]["torch"].startswith("2.")
    lines = read_jsonl(run / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert record["final"]["loss"] == lines[-1]["loss"]
    assert sum(int(str(line["tokens"])) for line in lines) == record["final"]["tokens"]
