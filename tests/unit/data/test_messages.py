"""Conversations in the forms that people have them become turns, or are refused by record and message."""

import json
from pathlib import Path
from typing import Any

import pytest

from galpaca.data.questions import load_questions
from galpaca.data.reading import load_records
from galpaca.data.records import Record, Turn
from galpaca.data.sources.files import open_files
from galpaca.errors import InputError, InputErrors

TALK = Record((Turn("Name a gas.", "", "Helium."), Turn("Another?", "", "Neon.")), "Be brief.")
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a gas."},
    {"role": "assistant", "content": "Helium."},
    {"role": "user", "content": "Another?"},
    {"role": "assistant", "content": "Neon."},
]
SHAREGPT = [
    {"from": {"user": "human", "assistant": "gpt"}.get(one["role"], "system"), "value": one["content"]}
    for one in MESSAGES
]


def written(folder: Path, *rows: Any) -> str:
    path = folder / "talk.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def refusals(folder: Path, *rows: Any) -> list[InputError]:
    with pytest.raises(InputError) as caught:
        load_records(open_files(written(folder, *rows)))
    return list(caught.value.problems) if isinstance(caught.value, InputErrors) else [caught.value]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": MESSAGES, "id": 7},
        {"conversations": SHAREGPT},
        {"messages": SHAREGPT},
        {"conversations": MESSAGES},
        {"prompt": MESSAGES[:4], "completion": MESSAGES[4:]},
    ],
    ids=["messages", "sharegpt", "sharegpt's messages", "conversations with roles", "prompt and completion"],
)
def test_every_form_gives_the_same_turns(row: dict[str, Any], tmp_path: Path) -> None:
    found = load_records(open_files(written(tmp_path, row)))
    assert found.records == [TALK]
    assert found.ignored_columns == ({"id": 1} if "id" in row else {})


def test_prompt_and_completion_in_plain_text(tmp_path: Path) -> None:
    row = {"prompt": "Name a gas.", "completion": "Helium."}
    assert load_records(open_files(written(tmp_path, row))).records == [Record.of("Name a gas.", "", "Helium.")]


def test_alpacas_columns_come_first(tmp_path: Path) -> None:
    row = {"instruction": "a", "output": "b", "messages": MESSAGES}
    found = load_records(open_files(written(tmp_path, row)))
    assert (found.records, found.ignored_columns) == ([Record.of("a", "", "b")], {"messages": 1})


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        (MESSAGES[1:2], "the conversation has no answer"),
        (MESSAGES[:4], "the last question has no answer"),
        (MESSAGES[2:3], "message 1 is of assistant where user has to speak"),
        ([MESSAGES[1], *MESSAGES[3:]], "message 2 is of user where assistant has to speak"),
        ([*MESSAGES[1:3], MESSAGES[0]], "message 3 is of system where user has to speak"),
        ([*MESSAGES[1:2], {"role": "tool", "content": "x"}], "message 2 has the role 'tool'"),
        ([*MESSAGES[1:2], {"content": "x"}], "message 2 has no role"),
        ([*MESSAGES[1:2], "Helium."], "message 2 has no role"),
        ([*MESSAGES[1:2], {"role": "assistant", "content": None}], "message 2 (assistant) is null, not a string"),
        ([*MESSAGES[1:2], {"role": "assistant", "content": [{"type": "text"}]}], "message 2 (assistant) is a list"),
        ([], "the conversation has no answer"),
        ("Name a gas.", "the field 'messages' is a string, not a list of messages"),
        (None, "the field 'messages' is null, not a list of messages"),
    ],
)
def test_a_malformed_one_is_refused_by_record_and_message(messages: Any, what: str, tmp_path: Path) -> None:
    [problem] = refusals(tmp_path, {"messages": MESSAGES}, {"messages": messages})
    assert problem.what.startswith(what)
    assert problem.where.endswith("record 2 (line 2)")
    assert problem.fix


def test_all_malformed_ones_at_once(tmp_path: Path) -> None:
    assert len(refusals(tmp_path, *[{"messages": MESSAGES[:4]}] * 3)) == 3


def test_a_question_may_have_turns_before_it(tmp_path: Path) -> None:
    asked = TALK._replace(turns=(TALK.turns[0], Turn("Another?", "", "")))
    for messages in (MESSAGES[:4], MESSAGES):
        [question] = load_questions(open_files(written(tmp_path, {"messages": messages})))
        assert question.record == asked
        assert question.instruction == "Another?"
