"""A model that was trained on conversations sees the earlier turns; any other sees none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Train

from galpaca.cli import main
from galpaca.data.records import Record, Turn
from galpaca.inference.conversation import next_question
from galpaca.inference.loading import Loaded, load

HISTORY = [Turn("Name a gas.", "in the air", "Neon."), Turn("Another?", "", "Argon.")]


@pytest.fixture
def model(train: Train, tmp_path: Path) -> Path:
    talk = [
        {"role": "user", "content": "Name a gas."},
        {"role": "assistant", "content": "Neon."},
        {"role": "user", "content": "Another?"},
        {"role": "assistant", "content": "Argon."},
    ]
    records = tmp_path / "talks.jsonl"
    records.write_text((json.dumps({"messages": talk}) + "\n") * 8, encoding="utf-8")
    done = train(f"data.path={records}", "trainer.max_steps=1")
    assert done.returncode == 0, done.stderr
    return tmp_path / "runs" / "test"


def test_what_the_model_sees(model: Path, tmp_path: Path) -> None:
    loaded = load(str(model))
    assert loaded.keeps_turns
    question, left_out = next_question(loaded, HISTORY, "One more?", "a noble one")
    assert question == Record((*HISTORY, Turn("One more?\n\na noble one", "", "")))
    assert left_out == 0
    [ids] = loaded.prompt_ids([question])
    assert loaded.tokenizer.decode(ids).endswith("### Response:")
    assert ids.count(loaded.tokenizer.eos_id) == 2, "after each answer"
    assert next_question(replace(loaded, keeps_turns=False), HISTORY, "One more?", "a")[0] == Record.of(
        "One more?", "a"
    )
    single = replace(loaded, keeps_turns=False)
    assert single.prompt_ids([question]) == loaded.prompt_ids([question.alone()])
    assert "of 1 conversations it sees the last alone" in single.note_on_turns([question, Record.of("One?")])
    assert not single.note_on_turns([Record.of("One?")])
    assert not loaded.note_on_turns([question])
    leaves_out_what_does_not_fit(loaded)
    file_with_turns(model, tmp_path)


def leaves_out_what_does_not_fit(loaded: Loaded) -> None:
    [whole] = loaded.prompt_ids([next_question(loaded, HISTORY, "One more?")[0]])
    short = replace(loaded, positions=len(whole))
    question, left_out = next_question(short, HISTORY, "One more?")
    assert (left_out, question.turns[0]) == (1, HISTORY[1])
    question, left_out = next_question(replace(loaded, positions=10), HISTORY, "One more?")
    assert (left_out, question) == (2, Record.of("One more?"))


def file_with_turns(model: Path, tmp_path: Path) -> None:
    """``generate`` answers the last question of a conversation."""
    talk = [{"role": "user", "content": "Name a gas."}, {"role": "assistant", "content": "Neon."}]
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    rows: list[dict[str, Any]] = [
        {"messages": [*talk, {"role": "user", "content": "Why?"}], "id": 7},
        {"messages": talk[:1]},
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ["--file", str(prompts), "--out", str(out), "--max-new-tokens", "2"]
    assert main(["generate", str(model), *options]) == 0
    first, second = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert first["messages"] == rows[0]["messages"]
    assert first["id"] == 7
    assert first["prompt_tokens"] > second["prompt_tokens"]
