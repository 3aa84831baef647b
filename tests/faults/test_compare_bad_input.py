"""What a person can get wrong with ``galpaca compare`` and ``galpaca evaluate``: reported at once, nothing written."""

import json
from pathlib import Path

import pytest

from galpaca.cli import main


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "held.jsonl"
    path.write_text('{"instruction": "Name a gas.", "input": "", "output": "Helium.", "category": "chemistry"}\n')
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    assert main([str(argument) for argument in arguments]) == code
    return capsys.readouterr().err


def test_all_is_reported_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path, records: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    (tmp_path / "nothing").mkdir()
    message = refused(
        capsys,
        *("compare", tmp_path / "nothing", tmp_path / "missing", "--out", tmp_path / "no" / "page.html"),
        *("--prompts", empty, "--records", tmp_path / "gone.json", "--max-new-tokens", 0, "--template", "alpacca"),
    )
    for problem in (
        "has no model",
        "no such folder",
        "the file is empty",
        "no such file",
        "must be at least 1, got 0",
        "unknown template 'alpacca'",
    ):
        assert problem in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jsonl", "held.jsonl", "nothing"]


def test_one_model_is_no_comparison(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    message = refused(capsys, "compare", run, "--out", tmp_path / "page.html")
    assert "at least two models, got 1" in message
    assert "galpaca evaluate" in message


def test_two_of_one_name_are_reported_apart_by_labels(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    message = refused(capsys, "compare", run, run / "model", "--out", tmp_path / "page.html")
    assert "2 models have the label 'test'" in message
    assert f"first={run} second={run / 'model'}" in message
    message = refused(capsys, "compare", f"a={run}", f"a={run}", "--out", tmp_path / "page.html")
    assert "2 models have the label 'a'" in message


def test_a_checkpoint_needs_an_export(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "step-00000002"
    message = refused(capsys, "compare", run, checkpoint, "--out", tmp_path / "page.html")
    assert "a checkpoint, not a model" in message
    assert f"galpaca export {checkpoint} FOLDER" in message


def test_another_file_is_not_replaced(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    page = tmp_path / "thesis.html"
    page.write_text("years of work")
    message = refused(capsys, "compare", run, f"again={run}", "--out", page)
    assert "was not written by galpaca compare" in message
    assert page.read_text() == "years of work"


def test_records_without_outputs_have_no_loss(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text(json.dumps([{"instruction": "Do.", "input": "", "output": ""}]))
    assert "none of 1 records has an output" in refused(capsys, "evaluate", run, "--records", path)
    assert not (run / "model" / "evaluation").exists()


def test_prompts_that_fill_the_context_leave_no_target(
    capsys: pytest.CaptureFixture[str], run: Path, records: Path, tmp_path: Path
) -> None:
    message = refused(capsys, "evaluate", run, "--records", records, "--max-length", 5, "--out", tmp_path / "results")
    assert "no record has a target token" in message
    assert not (tmp_path / "results").exists()
    message = refused(
        capsys,
        *("compare", run, f"again={run}", "--records", records, "--max-length", 5, "--max-new-tokens", 2),
        *("--prompts", records, "--out", tmp_path / "page.html"),
    )
    assert "none of the 1 records fits into the context of every model" in message
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_an_unknown_task_names_those_that_look_like_it(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "a.yaml").write_text("task: local_science\ndataset_path: json\noutput_type: multiple_choice\n")
    message = refused(
        capsys,
        *("evaluate", run, "--tasks", "local_sience", "--include-path", folder, "--out", tmp_path / "results"),
    )
    assert "unknown task 'local_sience'" in message
    assert "local_science" in message.split("fix:")[1]


def test_without_lm_eval_tasks_say_how_to_get_it(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    message = refused(capsys, "evaluate", run, "--tasks", "arc_easy", "--out", tmp_path / "results")
    assert "pip install 'galpaca[evaluate]'" in message


def test_records_and_tasks_exclude_each_other(capsys: pytest.CaptureFixture[str], run: Path, records: Path) -> None:
    for wrong in ([], ["--records", records, "--tasks", "arc_easy"], ["--records", records, "--limit", 3]):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in ("evaluate", run, *wrong)])
        assert end.value.code == 2
    assert "--limit requires --tasks" in capsys.readouterr().err


def test_results_of_the_hubs_model_need_a_place(capsys: pytest.CaptureFixture[str], records: Path) -> None:
    assert "--out FOLDER" in refused(capsys, "evaluate", "facebook/opt-125m", "--records", records)


def test_a_place_that_is_no_folder_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], run: Path, records: Path
) -> None:
    assert "cannot write results here" in refused(capsys, "evaluate", run, "--records", records, "--out", records)
