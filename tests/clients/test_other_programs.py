"""Other programs that read a released folder: PEFT, transformers' Trainer, lm-eval's own command, safetensors."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoTokenizer, OPTForCausalLM

from galpaca.inference.any_model import load_any

pytestmark = pytest.mark.slow

TEXT = "What is the chemical symbol of gold?"


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run / "model", tmp_path / "model"))


def test_safetensors_reads_what_transformers_loads(folder: Path) -> None:
    loaded = OPTForCausalLM.from_pretrained(folder).state_dict()
    index = folder / "model.safetensors.index.json"
    assert not index.exists(), "one file, as one of this size is"
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        names = set(file.keys())
        assert names == set(loaded) - {"lm_head.weight"}, "the head is the embedding's"
        for name in names:
            assert torch.equal(file.get_tensor(name).float(), loaded[name].float()), name


def test_peft_adapts_it_and_starts_where_it_is(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = OPTForCausalLM.from_pretrained(folder)
    encoded = tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        before = model(**encoded).logits
    adapted: Any = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4))
    with torch.no_grad():
        torch.testing.assert_close(adapted(**encoded).logits, before)
    answers = adapted.generate(**encoded, max_new_tokens=8)
    assert answers.shape[1] <= encoded["input_ids"].shape[1] + 8


def test_the_trainer_of_transformers_goes_on_from_it(folder: Path, tmp_path: Path) -> None:
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = OPTForCausalLM.from_pretrained(folder)
    texts = [tokenizer(f"{TEXT} Au. " * count, truncation=True) for count in (1, 2, 3, 500)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=3, per_device_train_batch_size=2, learning_rate=1e-2, report_to=[]
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=texts,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
    )
    before = model.model.decoder.layers[0].fc1.weight.detach().clone()
    loss = trainer.train().training_loss
    assert 0 < loss < 20
    assert not torch.equal(before, model.model.decoder.layers[0].fc1.weight)
    trainer.save_model(str(tmp_path / "saved"))
    again: Any = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (again.padding_side, again.model_max_length) == ("left", tokenizer.model_max_length)
    assert again.chat_template == tokenizer.chat_template


CHOICE = {
    "task": "client_science",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}],
}
DOCS = [
    {"question": "Question: Which is the symbol of gold?\nAnswer:", "choices": ["Au", "Ag", "Fe"], "answer": 0},
    {"question": "Question: Which planet is the largest?\nAnswer:", "choices": ["Mars", "Jupiter"], "answer": 1},
]


def test_lm_evals_own_command_scores_as_the_model_does(folder: Path, tmp_path: Path) -> None:
    """Plain prompts, in which there are no sequences; those it cannot split, as the card says."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    files = {"data_files": {"test": str(tasks / "docs.jsonl")}}
    (tasks / "client_science.yaml").write_text(yaml.safe_dump({**CHOICE, "dataset_kwargs": files}))
    line = [sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "2", "--log_samples"]
    line += ["--model_args", f"pretrained={folder},dtype=float32", "--tasks", "client_science"]
    line += ["--include_path", str(tasks), "--output_path", str(tmp_path / "results")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    [samples] = (tmp_path / "results").rglob("samples_client_science_*.jsonl")
    found = {one["doc"]["question"]: one for one in map(json.loads, samples.read_text().splitlines())}
    model = load_any(str(folder), dtype="float32").model
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    for doc in DOCS:
        scores = [float(one[0]) for one in found[str(doc["question"])]["filtered_resps"]]
        expected = [_log_likelihood(model, tokenizer, str(doc["question"]), f" {choice}") for choice in doc["choices"]]  # type: ignore[attr-defined]
        assert scores == pytest.approx(expected, abs=1e-3)


@torch.no_grad()
def _log_likelihood(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    head, whole = (tokenizer(text)["input_ids"] for text in (context, context + continuation))
    assert whole[: len(head)] == head
    logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return float(sum(logits[place - 1, whole[place]] for place in range(len(head), len(whole))))


def test_the_card_names_what_does_not_split_sequences(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "A program that sends plain text" in card
    assert "`galpaca evaluate --tasks`" in card
