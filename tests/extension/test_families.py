"""A family from outside of the project: trained, killed, resumed, adapted, released and evaluated as the others."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Galpaca, Train, read_jsonl
from extension.own_family import NeoX
from families import Sizes
from faults.kills import assert_equal_runs
from parity.flat_run import OVERRIDES, RECIPE, flat_run
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig

from galpaca.errors import GalpacaError
from galpaca.model.build import build_model
from galpaca.model.families.family import Family

OWN = "model.family=extension.own_family.NeoX"
STEPS = 20
# Relative, over all steps, as tests/parity has them.
TOLERANCE = 1e-5


def config(vocabulary: int, **special: Any) -> GPTNeoXConfig:
    sizes = Sizes(vocabulary, hidden=64, ffn=128)
    return GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.ffn,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=256,
        **special,
    )


@pytest.fixture
def model(tmp_path: Path, tokenizer_folder: Path) -> Path:
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    made: Any = AutoModelForCausalLM.from_config(config(len(tokenizer), use_parallel_residual=False))
    made.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_it_computes_what_the_flat_loop_computes(
    train: Train, tmp_path: Path, tokenizer_folder: Path, records_file: Path, model: Path
) -> None:
    how = (f"trainer.max_steps={STEPS}", f"optim.lr={RECIPE.lr}")
    done = train(f"model.path={model}", OWN, *OVERRIDES, *how)
    assert done.returncode == 0, done.stderr
    ours = read_jsonl(tmp_path / "runs" / "test" / "metrics.jsonl")
    flat = flat_run(model, tokenizer_folder, records_file, STEPS)
    for line, expected in zip(ours, flat, strict=True):
        for key in ("loss", "grad_norm", "lr"):
            assert line[key] == pytest.approx(expected[key], rel=TOLERANCE), f"{key} of step {line['step']}"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["single", "fsdp2"])
def test_killed_resumed_and_released(train: Train, tmp_path: Path, strategy: str) -> None:
    ranks = () if strategy == "single" else ("trainer.devices=2",)
    saved = ("trainer.max_steps=6", "checkpoint.every_steps=2")
    chosen = (OWN, f"strategy={strategy}", *ranks, "model.dropout=0.2", *saved)
    assert train("run.name=straight", *chosen, "checkpoint.asynchronous=false").returncode == 0
    hook = {"hook": "faults.crash:signal_group_at_step", "hook_arguments": (5, signal.SIGKILL)}
    killed = train("run.name=killed", *chosen, "checkpoint.asynchronous=false", **hook)
    assert killed.returncode == -signal.SIGKILL
    again = train("run.name=killed", *chosen, "checkpoint.asynchronous=false")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(tmp_path / "runs" / "straight", tmp_path / "runs" / "killed")
    card = (tmp_path / "runs" / "killed" / "model" / "README.md").read_text(encoding="utf-8")
    assert "A GPT-NeoX model of" in card
    assert "GPTNeoXForCausalLM" in card


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["lora", "qlora"])
def test_adapters_are_merged_and_answer(
    train: Train, galpaca: Galpaca, tmp_path: Path, model: Path, tuning: str
) -> None:
    done = train(f"model.path={model}", OWN, f"tuning={tuning}", "optim.lr=1e-2", "data.val_fraction=0.1")
    assert done.returncode == 0, done.stderr
    assert "on all linear layers" in done.stdout
    whole: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "runs" / "test" / "model")
    base: Any = AutoModelForCausalLM.from_pretrained(model)
    one, other = (loaded.gpt_neox.layers[0].mlp.dense_h_to_4h.weight for loaded in (whole, base))
    assert not torch.equal(one, other)
    for place in ("runs/test/model", "runs/test@4"):
        answer = galpaca("generate", str(tmp_path / place), "--instruction", "What is water?", "--max-new-tokens", "4")
        assert answer.returncode == 0, answer.stderr


class Incomplete(NeoX):
    """Forgets to compute its frequencies."""

    build = Family.build


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("extension.own_family.Nothing", ["cannot use 'extension.own_family.Nothing'", "model.family=opt, llama"]),
        ("mistral", ["cannot use 'mistral' as a model's family"]),
        ("llama", ["of the type 'gpt_neox', and model.family=llama is of 'llama'"]),
        (None, ["models of the type 'gpt_neox' are not supported", "OPT, Llama"]),
    ],
)
def test_what_is_no_family_of_the_model_is_refused(
    train: Train, model: Path, family: str | None, words: list[str]
) -> None:
    done = train(f"model.path={model}", *([f"model.family={family}"] if family else []))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for one in words:
        assert one in " ".join(done.stderr.split())


def test_a_family_that_leaves_buffers_without_values_is_stopped() -> None:
    with pytest.raises(GalpacaError, match=r"buffers without values: gpt_neox\.rotary_emb\.inv_freq"):
        build_model(config(100), Incomplete())
