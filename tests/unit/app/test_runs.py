"""``galpaca runs``: what a table of runs says, of runs in every state."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from galpaca.app.entrypoint import run_command
from galpaca.app.report import report
from galpaca.app.runs import compare, find_runs, show_runs
from galpaca.errors import InputError
from galpaca.runs.found import with_runs_below
from galpaca.runs.lock import locked


def make_run(path: Path, steps: int, *, planned: int = 4, val_loss: float | None = None, **config: Any) -> Path:
    """A run's files after so many steps, each of 100 tokens and 18 seconds."""
    path.mkdir(parents=True)
    (path / "run.lock").touch()
    (path / "run.json").write_text(json.dumps({"id": "x", "plan": {"steps": planned, "steps_per_epoch": 2}}))
    settings = {"run": {"name": path.name}, "seed": 42, "optim": {"lr": 1e-5, "beta2": 0.95}, "data": {"path": None}}
    (path / "config.yaml").write_text(yaml.safe_dump({**settings, **config}))
    lines: list[dict[str, Any]] = [
        {"step": step, "loss": 4.0 - step / 2, "tokens": 100, "step_seconds": 18.0} for step in range(1, steps + 1)
    ]
    lines += [{"step": steps, "val_loss": val_loss}] if val_loss is not None else []
    if steps:
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if steps == planned:
        (path / "model").mkdir()
    return path


def states(*places: Path) -> dict[str, str]:
    return {row.run: row.state for row in compare(find_runs(places))}


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "lr" / "001", 4, optim={"lr": 1e-5, "beta2": 0.95})
    make_run(tmp_path / "lr" / "002", 2, optim={"lr": 2e-5, "beta2": 0.95}, data={"path": "a|b"})
    show_runs([tmp_path / "lr"], as_json=False, out=tmp_path / "runs.md")
    shown = capsys.readouterr().out
    assert shown == (
        "| run | state                  | steps | loss   | val_loss | tokens/s | hours | data.path | optim.lr |\n"
        "| --- | ---------------------- | ----- | ------ | -------- | -------- | ----- | --------- | -------- |\n"
        "| 001 | complete               | 4     | 2.0000 | -        | 6        | 0.02  | null      | 1e-05    |\n"
        "| 002 | stopped at step 2 of 4 | 2     | 3.0000 | -        | 6        | 0.01  | a\\|b      | 2e-05    |\n"
    )
    assert (tmp_path / "runs.md").read_text() == shown


def test_the_same_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "a", 4, val_loss=1.5)
    show_runs([run], as_json=True, out=None)
    assert json.loads(capsys.readouterr().out) == {
        "run": "a",
        "path": str(run),
        "state": "complete",
        "step": 4,
        "num_steps": 4,
        "loss": 2.0,
        "val_loss": 1.5,
        "tokens_per_second": 5.6,
        "hours": 0.02,
        "config": {},
        "data": "",
        "best": False,
    }


def test_the_lowest_validation_loss_comes_first_then_the_lowest_loss(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 4)
    make_run(tmp_path / "b", 4, val_loss=1.5)
    make_run(tmp_path / "c", 1, val_loss=1.2)
    make_run(tmp_path / "d", 2)
    make_run(tmp_path / "e", 0)
    assert [row.run for row in compare(find_runs([tmp_path]))] == ["c", "b", "a", "d", "e"]


def test_states(tmp_path: Path) -> None:
    make_run(tmp_path / "complete", 4)
    make_run(tmp_path / "stopped", 3)
    (make_run(tmp_path / "not-released", 4) / "model").rmdir()
    make_run(tmp_path / "not-started", 0)
    running = make_run(tmp_path / "running", 3)
    preparing = make_run(tmp_path / "preparing", 0)
    (preparing / "run.json").unlink()
    with locked(running / "run.lock"), locked(preparing / "run.lock"):
        assert states(tmp_path) == {
            "complete": "complete",
            "stopped": "stopped at step 3 of 4",
            "not-released": "stopped at step 4 of 4",
            "not-started": "not started",
            "running": "starting at step 3 of 4",
            "preparing": "starting at step 0",
        }
        now = time.time() + 1
        os.utime(running / "metrics.jsonl", (now, now))
        assert states(running) == {"running": "running at step 3 of 4"}
    assert states(running) == {"running": "stopped at step 3 of 4"}


def test_a_killed_run_is_not_running(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 3)
    (run / "run.lock").write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1}))
    assert states(run) == {"a": "killed at step 3 of 4"}


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 1.0, "tok')
    (row,) = compare(find_runs([run]))
    assert (row.state, row.step, row.loss) == ("stopped at step 3 of 4", 3, 2.5)


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "metrics.jsonl"])
def test_a_damaged_file_is_reported_and_the_others_count(tmp_path: Path, name: str) -> None:
    """One broken run must not hide the others."""
    make_run(tmp_path / "a", 3)
    run = make_run(tmp_path / "b", 3)
    text = (run / name).read_text()
    (run / name).write_text(text[:9] + "\0{[\n" + text[9:])
    found = states(tmp_path)
    assert found["a"] == "stopped at step 3 of 4"
    assert found["b"].endswith(f"; {name} cannot be read")
    assert found["b"].startswith("stopped at step 3")


def test_a_finished_validation_without_a_number_is_none(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "val_loss": null}\n')
    assert compare(find_runs([run]))[0].val_loss is None


def test_runs_are_found_wherever_they_are_and_once(tmp_path: Path) -> None:
    """Not in what runs keep, such as ``.cache``, nor in a run's own folder."""
    for name in ("demo", "lr/001", "lr/002", ".cache/hidden", "demo/model/inner"):
        make_run(tmp_path / "runs" / name, 4)
    given = [tmp_path / "runs", tmp_path / "runs" / "lr", tmp_path / "runs" / "demo"]
    assert sorted(states(*given)) == ["demo", "lr/001", "lr/002"]


def test_linked_runs_are_found_and_a_link_upwards_ends(tmp_path: Path) -> None:
    """Scratch disks are often linked to."""
    make_run(tmp_path / "scratch" / "a", 4)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "here").symlink_to(tmp_path / "scratch")
    (tmp_path / "scratch" / "up").symlink_to(tmp_path)
    assert list(states(tmp_path / "runs")) == ["a"]


def test_keys_of_one_run_alone_differ(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 4)
    make_run(tmp_path / "b", 4, tuning={"targets": {"every": 3}}, compute={})
    make_run(tmp_path / "c", 0)
    (tmp_path / "c" / "config.yaml").unlink()
    found = {row.run: row.config for row in compare(find_runs([tmp_path]))}
    assert found == {"a": {}, "b": {"tuning.targets.every": 3, "compute": {}}, "c": {}}


def test_what_is_saved_and_shown_is_nothing_to_compare_by(tmp_path: Path) -> None:
    """A terminal showed 26 columns, among them the logger's project and an absolute path of sample questions."""
    make_run(tmp_path / "a", 4, logger={"project": "x"}, samples={"prompts": "/far/away"}, model={"path": None})
    make_run(tmp_path / "b", 4, checkpoint={"every_steps": 5}, model={"path": "/weights", "num_layers": 2})
    rows = {row.run: row.config for row in compare(find_runs([tmp_path]))}
    assert rows == {"a": {"model.path": None}, "b": {"model.path": "/weights"}}


def test_the_best_is_so_among_runs_of_the_same_data(tmp_path: Path) -> None:
    for name, data, loss in (("a", "x", 2.0), ("b", "x", 1.5), ("c", "y", 1.0)):
        run = make_run(tmp_path / name, 4, val_loss=loss)
        content = json.loads((run / "run.json").read_text())
        recipe = {"format": 2, "data.fingerprint": data * 9, "tokenizer.fingerprint": "t" * 9}
        (run / "run.json").write_text(json.dumps({**content, "recipe": recipe}))
    rows = compare(find_runs([tmp_path]))
    assert [(row.run, row.best) for row in rows] == [("b", True), ("a", False), ("c", False)]
    assert rows[0].data == "xxxxxx-tttttt"


def test_a_terminal_gets_a_table_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "a", 4, val_loss=2.0, optim={"lr": 1e-5}, data={"path": "/long/way/to/records.csv"})
    make_run(tmp_path / "b", 4, val_loss=1.0, optim={"lr": 2e-5})
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    show_runs([tmp_path], as_json=False, out=None)
    said = capsys.readouterr().out
    assert "|" not in said
    assert "/long/way" not in said
    assert "records.csv" in said
    assert "the lowest validation loss of runs with the same data" in said


def test_files_beside_runs_are_no_runs(tmp_path: Path) -> None:
    """``galpaca report FOLDER/*`` was refused since the table of a sweep lies there, for a false reason."""
    runs = [make_run(tmp_path / name, 4) for name in ("a", "b")]
    (tmp_path / "runs.md").touch()
    assert with_runs_below([*runs, tmp_path / "runs.md"]) == runs
    assert with_runs_below([tmp_path]) == [run.resolve() for run in runs]
    with pytest.raises(InputError, match="not a run folder") as caught:
        report([tmp_path / "runs.md"])
    assert "it is a file" in str(caught.value)


def test_a_folder_without_runs_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 4)
    (tmp_path / "empty").mkdir()
    places = [tmp_path / name for name in ("a", "empty", "nowhere")]
    with pytest.raises(InputError) as caught:
        show_runs(places, as_json=False, out=tmp_path / "runs.md")
    assert f"{tmp_path / 'empty'}: contains no run" in str(caught.value)
    assert f"{tmp_path / 'nowhere'}: no such folder" in str(caught.value)
    assert not (tmp_path / "runs.md").exists()


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "a", 4)
    out = tmp_path / "nowhere" / "runs.md"
    assert run_command(lambda: show_runs([run], as_json=False, out=out)) == 2
    assert str(out) in capsys.readouterr().err
    out = tmp_path / "taken"
    out.mkdir()
    assert run_command(lambda: show_runs([run], as_json=False, out=out)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "taken"]
