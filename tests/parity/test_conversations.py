"""Three-turn conversations: ids, targets and losses equal those of a plain loop with its own code of the template."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Train, read_jsonl
from transformers import AutoTokenizer, OPTForCausalLM

from examples.flat_loop import NO_TARGET, Recipe
from examples.flat_loop import train as flat_train
from galpaca.data.encoding import RecordEncoder
from galpaca.data.prompts import load_template
from galpaca.data.reading import load_records
from galpaca.data.sources.files import open_files
from galpaca.data.tokenizer import load_tokenizer

TASK = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
LENGTH, STEPS = 256, 6


def conversation(records: list[dict[str, str]], number: int) -> list[dict[str, str]]:
    """Three questions and answers of the demo, the first of which may have a molecule."""
    messages = [{"role": "system", "content": "Answer briefly."}] if number % 3 == 0 else []
    for turn in range(3):
        record = records[(7 * number + 31 * turn) % len(records)]
        question = record["instruction"] + (f" {record['input']}" if record["input"] else "")
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": record["output"]}]
    return messages


def plain(messages: list[dict[str, str]], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids and labels, in code of its own: no function of galpaca is called."""
    ids: list[int] = []
    labels: list[int] = []
    text, number = "", 0
    for message in messages:
        content = spelled(message["content"])
        if message["role"] == "system":
            text = content + "\n\n"
        elif message["role"] == "user":
            text += f"{TASK}\n\n### Instruction:\n" if number == 0 else "\n\n### Instruction:\n"
            text += f"{content}\n\n### Response:"
            number += 1
        else:
            prompt, whole = (tokenizer(one)["input_ids"] for one in (text, f"{text}{content}</s>"))
            ids += whole
            labels += [NO_TARGET] * len(prompt) + whole[len(prompt) :]
            text = ""
    return ids, labels


def spelled(text: str) -> str:
    """Molecules letter by letter."""
    before, tag, rest = text.partition("[START_SMILES]")
    if not tag:
        return text
    molecule, _, after = rest.partition("[END_SMILES]")
    marker = "SPL1T-TH1S-Pl3A5E"
    return before + tag + "".join(marker + one for one in molecule) + marker + "[END_SMILES]" + spelled(after)


@pytest.fixture
def talks(tmp_path: Path, demo_records: list[dict[str, str]]) -> Path:
    path = tmp_path / "talks.jsonl"
    rows = [{"messages": conversation(demo_records, number)} for number in range(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_ids_and_targets(talks: Path, tokenizer_folder: Path) -> None:
    records = load_records(open_files(str(talks))).records
    assert {len(record.turns) for record in records} == {3}
    assert any("[START_SMILES]" in text for record in records for text in record.texts())
    hf = AutoTokenizer.from_pretrained(tokenizer_folder)
    encoder = RecordEncoder(load_tokenizer(str(tokenizer_folder)), load_template("alpaca"))
    for row, one in zip(read_jsonl(talks), encoder.encode(records, 10_000), strict=True):
        ids, labels = plain(row["messages"], hf)
        assert one.ids == ids
        found = [NO_TARGET] * len(ids)
        for start, stop in one.spans:
            found[start:stop] = ids[start:stop]
        assert found == labels
        assert len(one.spans) == 3


def test_losses(train: Train, talks: Path, tmp_path: Path, tokenizer_folder: Path) -> None:
    """From the same weights, step by step."""
    common = [f"data.path={talks}", f"data.max_length={LENGTH}", "model.max_positions=512", "model.dropout=0"]
    first = train(*common, "run.name=zero", "trainer.max_steps=1")
    assert first.returncode == 0, first.stderr
    start = tmp_path / "runs" / "zero" / "model"
    recipe = Recipe(max_length=LENGTH, examples_per_step=8, num_epochs=9, lr=1e-3)
    steps = [f"trainer.max_steps={STEPS}", "trainer.max_epochs=9", "optim.lr=1e-3", f"model.path={start}"]
    done = train(*common, *steps, "run.name=ours")
    assert done.returncode == 0, done.stderr
    hf = AutoTokenizer.from_pretrained(tokenizer_folder)
    examples = [plain(row["messages"], hf) for row in read_jsonl(talks)]
    kept = [(ids, labels) for ids, labels in examples if len(ids) <= LENGTH]
    assert len(kept) == len(examples), "no conversation is truncated"
    model = OPTForCausalLM.from_pretrained(start, dtype=torch.float32)
    ours = [line for line in read_jsonl(tmp_path / "runs" / "ours" / "metrics.jsonl") if "loss" in line]
    theirs = list(flat_train(model, examples, recipe, STEPS))
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in theirs], rel=1e-5)


def test_the_receipt_counts_them(train: Train, talks: Path, tmp_path: Path) -> None:
    assert train(f"data.path={talks}", "trainer.max_steps=1", "model.max_positions=512").returncode == 0
    run = tmp_path / "runs" / "test"
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["receipt"]["conversations"] == 24
    assert json.loads((run / "model" / "galpaca.json").read_text(encoding="utf-8"))["keeps_turns"] is True
