"""What reaches W&B's server, whatever it does, from run folders that are written here line by line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from wandb_server import Received, WandbServer, serving

from galpaca.app import sync as app_sync
from galpaca.app.sync import sync
from galpaca.errors import GalpacaError, InputError
from galpaca.runs.folder import RunFolder
from galpaca.runs.lines import Alert, SampleLine, StepLine, SystemLine, ValidationLine
from galpaca.runs.lock import locked
from galpaca.runs.metrics import append_lines, read_metrics
from galpaca.tracking import follower as follower_module
from galpaca.tracking import service
from galpaca.tracking.follower import Follower
from galpaca.tracking.places import Places
from galpaca.tracking.rows import METRICS, SAMPLES, SYSTEM, line_number
from galpaca.tracking.sender import Ending, last_numbers
from galpaca.training.loggers.wandb_logger import WandbLogger

CONFIG = (
    "logger: {_target_: galpaca.training.loggers.wandb, project: p, tags: [t], notes: n, group: null, entity: null}\n"
)


@pytest.fixture
def wandb_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server that this process sends to."""
    own = {"HOME": str(tmp_path), "WANDB_CACHE_DIR": str(tmp_path), "WANDB_DATA_DIR": str(tmp_path)}
    with serving() as server:
        for name, value in {**own, **server.environment, "WANDB_ERROR_REPORTING": "false"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(app_sync, "_PAUSES_SECONDS", (0.0, 0.0))
        yield server
        service.shut_down()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path, "run")
    folder.path.mkdir()
    folder.record.write_text('{"id": "run1", "created": "2026-11-28T00:00:00Z"}', encoding="utf-8")
    folder.config.write_text(CONFIG, encoding="utf-8")
    return folder


def add_steps(folder: RunFolder, first: int, last: int) -> None:
    lines = [StepLine(step=step, loss=1 / step, lr=0.1) for step in range(first, last + 1)]
    append_lines(folder.metrics, [*lines, ValidationLine(step=last, val_loss=2.5)])


def add_answers(folder: RunFolder, step: int, *answers: str) -> None:
    append_lines(folder.samples, [SampleLine(step=step, instruction="Name it.", answer=text) for text in answers])


def assert_each_line_once(received: Received, folder: RunFolder) -> None:
    numbers = [one["line"] for one in received.history if one.get("line", 1) % 2 == 0]
    assert numbers == [line_number(line) for line in read_metrics(folder.metrics)]
    assert [one["_step"] for one in received.history] == list(range(len(received.history)))


def test_lines_tables_figures_and_alerts_are_sent_once(wandb_server: WandbServer, folder: RunFolder) -> None:
    add_steps(folder, 1, 5)
    add_answers(folder, 0, "one")
    add_answers(folder, 5, "two")
    memory = SystemLine(time=1.0, step=4, extra={"gpu0_memory_bytes": 7})
    alert = SystemLine(time=2.0, step=4, alert=Alert(title="The loss is not finite", text="Step 4"))
    append_lines(folder.system, [memory, alert])
    sync([folder.path])
    received = wandb_server.runs["run1"]
    assert_each_line_once(received, folder)
    assert [one["samples/step"] for one in received.history if "samples/answers" in one] == [0, 5]
    assert [one["system/gpu0_memory_bytes"] for one in received.history if "system/gpu0_memory_bytes" in one] == [7]
    assert received.alerts == ["The loss is not finite: Step 4"]
    assert (received.config["config"]["logger"]["project"], received.config["id"]) == ("p", "run1")
    assert received.artifacts[-1] == "run-run1"
    assert (received.preempting > 0, received.finishes[-1]) == (True, 1), "it is not complete, and may be resumed"
    add_steps(folder, 6, 8)
    add_answers(folder, 8, "three")
    sync([folder.path])
    assert_each_line_once(received, folder)
    assert [one["samples/step"] for one in received.history if "samples/answers" in one] == [0, 5, 8]
    assert len(received.alerts) == 1
    assert not received.events, "figures of the machine that sends"
    assert not list(folder.wandb.rglob("*.wandb")), "W&B's own log, which nobody reads"


def test_a_folder_of_the_first_version_is_completed(wandb_server: WandbServer, folder: RunFolder) -> None:
    """Rows as commit 51e9e50 sent them from W&B's own logs: tables and costs of checkpoints had odd line numbers."""
    log = folder.wandb / "offline-run-20261124_170000-run1" / "run-run1.wandb"
    log.parent.mkdir(parents=True)
    log.write_bytes(b":W&B\xe1\xbe\x00 nobody reads this")
    (folder.wandb / "uploaded_up_to").write_text("14\n", encoding="ascii")
    add_steps(folder, 1, 3)
    append_lines(folder.metrics, [StepLine(step=4, loss=0.2, lr=0.1)])
    add_answers(folder, 0, "one")
    add_answers(folder, 4, "two")
    rows = [{"samples/step": 0, "line": -1, "step": 0}, *({"line": 4 * step, "step": step} for step in (1, 2, 3))]
    rows += [{"line": 14, "step": 3}, {"line": 15, "step": 3, "checkpoint/bytes": 7}]
    received = wandb_server.runs["run1"]
    received.history = [{**row, "_step": step} for step, row in enumerate(rows)]
    received.summary = json.dumps({"samples/step": 0, "line": 15, "step": 3, "_step": 5})
    sync([folder.path])
    assert_each_line_once(received, folder)
    assert [one.get("line") for one in received.history] == [-1, 4, 8, 12, 14, 15, 16, None]
    assert [one["samples/step"] for one in received.history if "samples/step" in one] == [0, 4]
    assert log.read_bytes().startswith(b":W&B"), "it is left as it is"


@pytest.mark.parametrize(
    ("summary", "last"),
    [
        ({"line": 12, "row": 2, "samples/step": 3, "samples/row": 1, "system/line": 0, "system/row": 0}, (12, 3, 0)),
        ({"line": 12, "row": 3, "samples/step": 3, "samples/row": 1, "system/line": 0, "system/row": 0}, (11, 3, 0)),
        ({"line": 12, "row": 2, "samples/step": 3, "samples/row": 3, "system/line": 0, "system/row": 0}, (12, 2, 0)),
        ({"line": 12, "row": 2, "samples/step": 3, "samples/row": 1, "system/line": 0, "system/row": 3}, (12, 3, -1)),
        ({"line": 13, "row": 3}, (12, -1, -1)),
        ({}, (-1, -1, -1)),
    ],
)
def test_a_row_whose_summary_came_alone_is_not_there(
    tmp_path: Path, summary: dict[str, int], last: tuple[int, int, int]
) -> None:
    """W&B sends a row's summary first. The server's summary had a line that it did not have, which was lost."""

    class Resumed:
        starting_step = 3

    Resumed.summary = summary  # type: ignore[attr-defined]
    found: Any = last_numbers(Resumed(), Places(tmp_path / "places.jsonl"))  # type: ignore[arg-type]
    assert (found[METRICS], found[SAMPLES], found[SYSTEM]) == last


@pytest.mark.parametrize(("num_there", "last"), [(1, -1), (2, 4), (3, 8), (4, 8), (5, 12)])
def test_a_summary_may_be_several_rows_ahead(tmp_path: Path, num_there: int, last: int) -> None:
    """A run was killed right after its first lines: W&B had the summary of both, and a row of neither. The first was
    taken to be there, and was lost.
    """

    class Resumed:
        starting_step = num_there
        summary: ClassVar = {"line": 12, "row": 4, "system/line": 1, "system/row": 3}

    places = Places(tmp_path / "places.jsonl")
    places.add(1, METRICS, 400)  # of an earlier session
    places.start({METRICS: -1, SAMPLES: -1, SYSTEM: -1})
    for place, (stream, number) in enumerate([(SYSTEM, 0), (METRICS, 4), (METRICS, 8), (SYSTEM, 1), (METRICS, 12)]):
        places.add(place, stream, number)
    with (tmp_path / "places.jsonl").open("a") as file:
        file.write("[5, ")  # a kill in the midst of a line
    found = last_numbers(Resumed(), places)  # type: ignore[arg-type]
    assert found[METRICS] == last
    assert found[SYSTEM] == (1 if num_there > 3 else 0)


def test_one_process_sends_at_a_time(wandb_server: WandbServer, folder: RunFolder) -> None:
    """Two would send the same lines."""
    add_steps(folder, 1, 3)
    refused = pytest.raises(GalpacaError, match="another process is sending this run to W&B")
    with locked(folder.wandb_lock), refused:
        sync([folder.path])
    assert wandb_server.runs == {}
    sync([folder.path])
    assert_each_line_once(wandb_server.runs["run1"], folder)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_session_that_is_lost_is_started_again_from_what_the_server_has(
    wandb_server: WandbServer, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(follower_module, "_CHECK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(follower_module, "_FIRST_PAUSE_SECONDS", 0.0)
    said: list[str] = []
    follower = Follower(service.Run(folder, "run1", "p"), said.append)
    add_steps(folder, 1, 3)
    assert not follower.step()
    wandb_server.is_down = True
    add_steps(folder, 4, 6)
    for _ in range(3):
        assert not follower.step(Ending())
    wandb_server.is_down = False
    add_steps(folder, 7, 9)
    assert follower.step(Ending())
    assert said == [f"W&B: {wandb_server.url} does not respond; trying again", "W&B responds again"]
    assert_each_line_once(wandb_server.runs["run1"], folder)
    assert "Traceback" not in capfd.readouterr().err


def test_what_a_server_does_not_keep_is_not_called_uploaded(
    wandb_server: WandbServer, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """W&B's own command calls uploads finished that have failed."""
    add_steps(folder, 1, 3)
    wandb_server.drops = True
    with pytest.raises(GalpacaError, match="not completely uploaded"):
        sync([folder.path])
    assert "is uploaded" not in capsys.readouterr().out
    wandb_server.drops = False
    sync([folder.path])
    assert "is uploaded" in capsys.readouterr().out
    assert_each_line_once(wandb_server.runs["run1"], folder)


@pytest.mark.slow
def test_a_server_that_answers_slowly_with_errors_or_not_at_all(wandb_server: WandbServer, folder: RunFolder) -> None:
    """W&B tries again; rows that came twice are there once."""
    add_steps(folder, 1, 5)
    wandb_server.answer_seconds, wandb_server.errors, wandb_server.lost_answers = 0.5, 1, 1
    sync([folder.path])
    assert (wandb_server.errors, wandb_server.lost_answers) == (0, 0)
    assert_each_line_once(wandb_server.runs["run1"], folder)


def test_the_list_needs_neither_network_nor_key(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    add_steps(folder, 1, 1200)
    add_answers(folder, 0, "one")
    sync([folder.path], dry_run=True)
    message = "1,201 lines; at W&B: none known; missing: 1,201 lines, 1 tables of samples"
    assert message in capsys.readouterr().out
    folder.wandb.mkdir()
    numbers = {"line": 4800, "samples/step": 0, "system/line": -1}
    (folder.wandb / "sent.json").write_text(json.dumps({**numbers, "verified": False}), encoding="utf-8")
    sync([folder.path], dry_run=True)
    assert "at W&B: up to step 1,200 (not verified); missing: 1 lines" in capsys.readouterr().out


def test_a_run_that_is_stopped_comes_back(
    wandb_server: WandbServer, folder: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the loggers' callers do, in the order in which they do it when a job is preempted."""
    logger = WandbLogger(service.Run(folder, "run1", "p"))
    add_steps(folder, 1, 1)
    logger.log_metrics({"loss/train": 1.0, "numerics/lr": 0.1}, step=1)
    logger.log_metrics({"checkpoint/bytes": 7}, step=1)
    logger.alert("A step took unusually long", "Step 1: 60.0 s.")
    logger.mark_preempting()
    logger.finalize("failed")
    logger.close(exit_code=1)
    logger.log_metrics({"loss/train": 1.0, "numerics/lr": 0.1}, step=2)
    received = wandb_server.runs["run1"]
    assert received.preempting >= 1
    assert received.finishes == [1], "W&B takes what ends well for finished, preempted or not"
    assert received.alerts == ["A step took unusually long: Step 1: 60.0 s."]
    assert [one["checkpoint/bytes"] for one in received.history if "checkpoint/bytes" in one] == [7]
    assert_each_line_once(received, folder)
    assert logger.next_command is None
    assert "warning" not in capfd.readouterr().err


@pytest.mark.parametrize(("mode", "reason"), [("offline", "WANDB_MODE=offline"), ("online", "no API key")])
def test_nothing_of_wandb_is_written_where_nothing_is_sent(
    wandb_server: WandbServer,
    folder: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    reason: str,
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_API_KEY", "")
    logger = WandbLogger(service.Run(folder, "run1", "p"))
    logger.close()
    assert f"W&B: {reason}; galpaca sync --follow {folder.path} shows it" in capsys.readouterr().out
    assert logger.next_command == f"galpaca sync {folder.path}"
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "run.json", "system.jsonl"]
    assert wandb_server.runs == {}
    with pytest.raises(InputError, match="no W&B API key"):
        sync([folder.path])


def test_disabled_is_nothing_at_all(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = WandbLogger(service.Run(folder, "run1", "p"))
    logger.log_metrics({"checkpoint/bytes": 7}, step=1)
    logger.alert("a", "b")
    logger.close()
    assert logger.next_command is None
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "run.json"]


def test_sync_refuses_what_is_no_run_or_is_not_shown(tmp_path: Path, folder: RunFolder) -> None:
    """All at once. A user's own logger of the same name is another: its arguments were taken for those of ours."""
    folder.config.write_text("logger: {_target_: mine.wandb, server: here}\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as refused:
        sync([folder.path, tmp_path / "empty", tmp_path / "none"], dry_run=True)
    message = str(refused.value)
    assert "3 problems" in message
    assert "the run is not logged to W&B" in message
    assert "not a run folder" in message
    assert "no such folder" in message
