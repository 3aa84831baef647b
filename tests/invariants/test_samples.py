"""Answers in training are those that the released model gives, under any strategy, and each is there once."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Train, read_jsonl
from transformers import OPTForCausalLM

from galpaca.data.prompts import load_template
from galpaca.data.tokenizer import load_tokenizer

QUESTIONS = [
    {"category": "chemistry", "instruction": "State the formula of water.", "input": ""},
    {"category": "biology", "instruction": "Split it.", "input": "[START_SMILES]CCO[END_SMILES]"},
]


def samples_of(run: Path) -> list[dict[str, Any]]:
    return read_jsonl(run / "samples.jsonl")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS), encoding="utf-8")
    return path


def overrides(prompts: Path, name: str, *more: str) -> tuple[str, ...]:
    requested = (f"samples.prompts={prompts}", "samples.every_steps=3", "samples.max_new_tokens=12")
    return (*requested, f"run.name={name}", "trainer.max_steps=4", "optim.lr=1e-2", "checkpoint.every_steps=1", *more)


@pytest.mark.slow
def test_greedy_as_the_released_model(train: Train, tmp_path: Path, prompts: Path) -> None:
    two = ("strategy=fsdp", "trainer.devices=2")
    assert train(*overrides(prompts, "fsdp", *two)).returncode == 0
    assert train(*overrides(prompts, "single")).returncode == 0
    runs = tmp_path / "runs"
    requested = samples_of(runs / "fsdp")
    assert [line["step"] for line in requested] == [0, 0, 3, 3, 4, 4]
    assert requested == samples_of(runs / "single")
    assert [(line["category"], line["input"]) for line in requested[:2]] == [
        (question["category"], question["input"]) for question in QUESTIONS
    ]
    model: Any = OPTForCausalLM.from_pretrained(runs / "fsdp/model")
    tokenizer, template = load_tokenizer(str(runs / "fsdp/model")), load_template("alpaca")
    for line in requested[-2:]:
        text = tokenizer.mark(template.prompt(line["instruction"], line["input"]))
        ids = tokenizer.hf(text, return_tensors="pt", return_token_type_ids=False)
        written = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert line["answer"] == tokenizer.decode(written.tolist()).strip()


@pytest.mark.slow
def test_stopped_and_gone_on(train: Train, tmp_path: Path, prompts: Path) -> None:
    """Those of a step whose checkpoint was there and whose answers were not were missing for good."""
    hook = {"hook": "faults.crash:terminate_at_step", "hook_arguments": (2,)}
    assert train(*overrides(prompts, "again"), **hook).returncode == 143
    assert [line["step"] for line in samples_of(tmp_path / "runs/again")] == [0, 0]
    assert train(*overrides(prompts, "again")).returncode == 0
    assert train(*overrides(prompts, "straight")).returncode == 0
    assert samples_of(tmp_path / "runs/again") == samples_of(tmp_path / "runs/straight")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ('{"instruction": " ", "input": ""}\n', "the instruction is empty"),
        ('{"instruction": "x", "input": "", "answer": "y"}\n', "'answer'"),
        (json.dumps({"instruction": "word " * 400, "input": ""}), "tokens, but the context length"),
    ],
)
def test_bad_questions_are_reported_first(train: Train, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text, encoding="utf-8")
    done = train(f"samples.prompts={path}", "data.max_length=128", "model.max_positions=256")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "runs/test").exists()
