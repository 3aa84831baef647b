"""The ten lines of docs/notebook.md, on a real run."""

import re
import textwrap
from pathlib import Path

import pytest
from conftest import REPOSITORY
from pandas import DataFrame

from galpaca import notebook
from galpaca.errors import InputError

PAGE = REPOSITORY / "docs" / "notebook.md"


def test_the_lines_of_the_page_work(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = re.search(r"\n\n((?:    .*\n|\n)+)", PAGE.read_text(encoding="utf-8"))
    assert block is not None
    lines = [line for line in textwrap.dedent(block[1]).strip().splitlines() if line]
    assert len(lines) <= 10
    code = "\n".join(line for line in lines if ".plot(" not in line).replace("runs/mine", str(run))
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert "['" in capsys.readouterr().out, "two answers"
    opened = notebook.open_run(run)
    assert list(opened.metrics["step"]) == list(range(1, len(opened.metrics) + 1))
    assert {"loss", "lr", "grad_norm", "tokens"} <= set(opened.metrics.columns)
    assert opened.config["optim"]["lr"] > 0


def test_answers_are_those_of_generate(run: Path) -> None:
    from galpaca.data.records import Record
    from galpaca.inference.answer import answer
    from galpaca.inference.loading import load
    from galpaca.inference.settings import Settings

    questions = ["Name a gas.", "What is the symbol of gold?"]
    model = notebook.open_run(run).model()
    expected = answer(load(str(run)), [Record.of(one, "briefly") for one in questions], Settings(max_new_tokens=8))
    assert model.answer(questions, ["briefly"] * 2, max_new_tokens=8) == [one.text for one in expected]
    table = DataFrame({"question": questions, "input": ["briefly"] * 2})
    assert model.answer(table["question"], table["input"], max_new_tokens=8) == [one.text for one in expected]


def test_mistakes_are_told(run: Path, tmp_path: Path) -> None:
    model = notebook.open_model(str(run))
    with pytest.raises(InputError, match="expected a list of instructions"):
        model.answer("Name a gas.")
    with pytest.raises(InputError, match="1 inputs for 2 instructions"):
        model.answer(["a", "b"], ["c"])
    with pytest.raises(InputError, match="temperature"):
        model.answer(["a"], temperature=-1)
    with pytest.raises(InputError, match="no such setting"):
        model.answer(["a"], temprature=1)
    with pytest.raises(InputError):
        notebook.open_run(tmp_path)
