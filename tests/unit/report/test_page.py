"""The page holds what the folder holds, and no text in it can become markup."""

import json
from pathlib import Path
from typing import Any

import pytest

from galpaca.app.report import report, write_report
from galpaca.errors import InputError
from galpaca.report.run import load_runs
from galpaca.report.tables import questions

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>&<!--"


def line(step: int, **figures: Any) -> dict[str, Any]:
    figures = {"loss": 2.0 / step, "lr": 1e-3, "tokens": 100, "target_tokens": 40, "step_seconds": 0.5} | figures
    return {"step": step, "grad_norm": 1.0, "tokens_per_second": 200.0, "peak_memory_bytes": 2**30, **figures}


def make_run(folder: Path, lines: list[dict[str, Any]], record: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    if record is not None:
        (folder / "run.json").write_text(json.dumps(record))
    return folder


def data_of(page: Path) -> Any:
    text = page.read_text()
    start = text.index('id="data">') + len('id="data">')
    return json.loads(text[start : text.index("</script>", start)])


def charts_of(page: Path) -> list[str]:
    return [chart["id"] for chart in data_of(page)["charts"]]


def test_figures_of_every_step_are_in_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(step) for step in range(1, 6)])
    page = write_report([run])
    assert page == run / "report.html"
    loss = data_of(page)["charts"][0]
    assert loss["lines"][0]["x"] == [1, 2, 3, 4, 5]
    assert loss["lines"][0]["y"] == pytest.approx([2, 1, 2 / 3, 0.5, 0.4], rel=1e-4)
    assert data_of(page)["runs"][0]["clock"]["tokens"][-1] == 500


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    record = {
        "id": HOSTILE,
        "recipe": {"data.fingerprint": HOSTILE},
        "receipt": {"source": HOSTILE, "max_length": 8},
        "starts": [{"step": 0, "command": [HOSTILE], "versions": {HOSTILE: HOSTILE}, "host": HOSTILE}],
    }
    run = make_run(tmp_path / "run", [line(1, **{HOSTILE: 1.0}), line(2, **{HOSTILE: 2.0})], record)
    (run / "config.yaml").write_text(json.dumps({HOSTILE: HOSTILE}))
    sample = {"step": 1, "category": HOSTILE, "instruction": HOSTILE, "input": HOSTILE, "answer": HOSTILE}
    (run / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    text = write_report([run]).read_text()
    assert "<script>window" not in text
    assert "<img" not in text
    assert text.count("</script>") == 3, "the data's and the two scripts'"
    assert "&lt;/script&gt;&lt;script&gt;window.hacked" in text


def test_a_run_that_was_cut_in_a_line_is_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(1), line(2)])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert data_of(write_report([run]))["charts"][0]["lines"][0]["x"] == [1, 2]


def test_lines_that_cannot_be_read_are_counted_and_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(1), line(4)])
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\0\0\0\n")
    text = write_report([run]).read_text()
    assert "Unreadable lines of metrics.jsonl, left out: 1." in text
    assert "missing from metrics.jsonl: 2." in text


@pytest.mark.parametrize("with_file", [True, False])
def test_a_run_without_steps_says_so(tmp_path: Path, with_file: bool) -> None:
    run = make_run(tmp_path / "run", [], {"id": "abc", "plan": {"steps": 9, "steps_per_epoch": 3}})
    if not with_file:
        (run / "metrics.jsonl").unlink()
    page = write_report([run])
    assert "No step has been taken yet" in page.read_text()
    assert charts_of(page) == []


def test_null_figures_leave_a_gap_and_no_more(tmp_path: Path) -> None:
    """The loss scaler skipped a step, or a validation was not finite."""
    lines = [
        line(1),
        line(2, grad_norm=None, skipped=True, loss_scale=1.0),
        line(3, loss=None),
        {"step": 3, "val_loss": None},
    ]
    page = write_report([make_run(tmp_path / "run", lines)])
    by_id = {chart["id"]: chart for chart in data_of(page)["charts"]}
    assert by_id["grad-norm"]["lines"][0]["x"] == [1, 3]
    assert "steps skipped" in page.read_text()


def test_several_runs_are_drawn_over_each_other(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name / "run", [line(step) for step in (1, 2)]) for name in ("a", "b")]
    for run, lr in zip(runs, (1, 2), strict=True):
        (run / "config.yaml").write_text(f"optim: {{lr: {lr}, beta1: 0.9}}\n")
    page = write_report(runs, tmp_path / "both.html")
    assert [run["name"] for run in data_of(page)["runs"]] == ["a/run", "b/run"]
    assert {one["run"] for one in data_of(page)["charts"][0]["lines"]} == {0, 1}
    text = page.read_text()
    assert ">optim.lr</td>" in text
    assert "<td>optim.beta1</td>" not in text


def test_a_figure_of_a_later_version_gets_a_plot(tmp_path: Path) -> None:
    page = write_report([make_run(tmp_path / "run", [line(step, answer_share=step / 10) for step in (1, 2)])])
    assert "further-answer_share" in charts_of(page)


def test_a_report_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(1)])
    first = write_report([run]).read_text()
    assert write_report([run]).read_text()[:500] == first[:500]
    other = tmp_path / "notes.html"
    other.write_text("mine")
    with pytest.raises(InputError, match="was not written by galpaca report"):
        report([run], other)
    assert other.read_text() == "mine"
    with pytest.raises(InputError, match="a folder"):
        report([run], tmp_path)


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(1)])
    with pytest.raises(InputError, match="cannot write the page"):
        report([run], tmp_path / "none" / "page.html")


def test_damaged_run_json_is_one_clear_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(1)])
    (run / "run.json").write_text('{"id":')
    with pytest.raises(InputError, match=r"run\.json: cannot be read"):
        write_report([run])
    assert not (run / "report.html").exists()


def test_a_hundred_thousand_steps_make_a_small_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(step, loss=5.0 if step == 70_000 else 1.0) for step in range(1, 100_001)])
    page = write_report([run])
    assert page.stat().st_size < 1e6
    raw = data_of(page)["charts"][0]["lines"][0]
    assert max(raw["y"]) == 5.0
    assert raw["x"][raw["y"].index(5.0)] == 70_000


def test_spikes_and_steps_that_were_not_finite_are_reported(tmp_path: Path) -> None:
    lines = [line(1), line(2, spike=True), line(3, loss=None, non_finite=True, skipped=True, rolled_back_to=1)]
    page = write_report([make_run(tmp_path / "run", lines)])
    marks = next(one for one in data_of(page)["charts"][0]["lines"] if one["look"] == "marks")
    assert marks["x"] == [2]
    assert (
        "not finite: 3; their updates were skipped. The weights were restored from a checkpoint 1 times."
        in page.read_text()
    )
    assert not [chart for chart in charts_of(page) if chart.startswith("further")]


def test_answers_that_stay_are_reported_once_and_of_a_step_taken_again_the_later_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(1)])
    texts = [(10, "a"), (20, "of a step that a stop took back"), (20, "b"), (30, "b"), (40, "c")]
    samples = [{"step": step, "instruction": "q", "input": "", "category": "", "answer": text} for step, text in texts]
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    (question,) = questions(load_runs([run])[0])
    assert question.answers == [(10, 10, "a"), (20, 30, "b"), (40, 40, "c")]
