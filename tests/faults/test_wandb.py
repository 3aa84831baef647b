"""Runs that log to W&B, whatever becomes of them, of W&B and of the network: every line is there, once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Started, command, completed, read_jsonl
from wandb.util import get_core_path
from wandb_server import WandbServer, serving

from galpaca.training.tracking.rows import named, row

# Rows fill a block of a log, which W&B writes as a whole, in some twenty steps.
STEPS, EVERY = 60, 20
OVERRIDES = (
    "logger=wandb",
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=100",
    f"checkpoint.every_steps={EVERY}",
    "data.val_fraction=0.2",
    "trainer.val_every_steps=7",
    "trainer.read_metrics_every_steps=1",
)
BLOCK_BYTES = 32 * 1024


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    with serving() as server:
        yield server


class Runs:
    """One run folder, started as often as a test likes."""

    def __init__(self, folder: Path, server: str, tokenizer: Path, records: Path) -> None:
        self.folder, self.server, self.tokenizer, self.records = folder, server, tokenizer, records
        self.path = folder / "runs" / "test"
        self.environment = {"HOME": str(folder), "NETRC": str(folder / "netrc"), "WANDB_CACHE_DIR": str(folder)}

    def start(self, *overrides: str, env: dict[str, str] | None = None, hook: str | None = None, **how: Any) -> Started:
        line = command(self.folder, self.tokenizer, self.records, *OVERRIDES, *overrides)
        hook = hook and f"faults.wandb_hooks:{hook}"
        return Started(self.server, line, self.folder, env={**self.environment, **(env or {})}, hook=hook, **how)

    def slow(self, env: dict[str, str] | None = None, seconds: float = 0.05) -> Started:
        return self.start(env=env, hook="slow_steps", hook_arguments=(seconds,))

    def finish(self, **how: Any) -> subprocess.CompletedProcess[str]:
        done = completed(self.start(**how))
        assert done.returncode == 0, done.stderr
        return done

    def sync(self, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "galpaca", "sync", str(self.path), *options]
        environment = {**os.environ, **self.environment, **(env or {})}
        return subprocess.run(line, capture_output=True, text=True, timeout=200, env=environment, cwd=self.folder)

    @property
    def id(self) -> str:
        return str(json.loads((self.path / "run.json").read_text(encoding="utf-8"))["id"])

    def logs(self) -> list[Path]:
        files = [file for file in self.path.glob("wandb/*run-*/*.wandb") if not file.parent.is_symlink()]
        return sorted(files, key=lambda file: file.parent.name.removeprefix("offline-"))

    def rows(self) -> list[dict[str, Any]]:
        """Of all logs, oldest first."""
        return [one["history"]["item"] for file in self.logs() for one in records(file) if one["type"] == "history"]

    def step(self) -> int:
        """The last that is in the metrics."""
        metrics = self.path / "metrics.jsonl"
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        return int(json.loads(whole[-1])["step"]) if whole else 0


@pytest.fixture
def runs(tmp_path: Path, server: str, tokenizer_folder: Path, records_file: Path) -> Runs:
    return Runs(tmp_path, server, tokenizer_folder, records_file)


def records(file: Path) -> list[dict[str, Any]]:
    """A log as W&B itself reads it; what ``python -m wandb leet inspect --json`` starts."""
    line = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", str(file)]
    done = subprocess.run([*line, str(file.parent)], capture_output=True, text=True, timeout=60)
    return [json.loads(text) for text in done.stdout.splitlines()]


def without_its_own(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("_") and key != "row"}


def assert_each_line_once(rows: list[dict[str, Any]], metrics: Path) -> None:
    """The rows that are lines are those of the metrics, figure by figure; times may be those of a step's first time."""
    assert [one["row"] for one in rows if "row" in one] == [one["_step"] for one in rows if "row" in one]
    got = [without_its_own(one) for one in rows if one["line"] % 2 == 0]
    expected = [row(named(line), int(str(line["step"]))) for line in read_jsonl(metrics)]
    assert [one["line"] for one in got] == [one["line"] for one in expected], "lines are missing, or there twice"
    for one, other in zip(got, expected, strict=True):
        assert {k: v for k, v in one.items() if not _of_the_machine(k)} == {
            k: v for k, v in other.items() if not _of_the_machine(k)
        }


def _of_the_machine(name: str) -> bool:
    return name.endswith(("_per_second", "_seconds", "bytes"))


def until(condition: Callable[[], bool], process: Started, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, completed(process).stderr
        assert time.monotonic() < deadline
        time.sleep(0.005)


def service_of(process: Started) -> int:
    """W&B's own process, which leaves the process group."""
    found = subprocess.run(["pgrep", "-P", str(process.pid), "wandb-core"], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def kill_all(process: Started) -> None:
    """As a scheduler does at the end of its patience."""
    service = service_of(process)
    os.kill(service, signal.SIGKILL)
    process.kill_group()


@pytest.mark.slow
def test_everything_is_logged_without_a_network(runs: Runs) -> None:
    """Every figure of every line, in order; the configuration; what the run is made of; its record at the end."""
    done = runs.finish()
    (log,) = runs.logs()
    read = records(log)
    rows = [without_its_own(one["history"]["item"]) for one in read if one["type"] == "history"]
    expected = [row(named(line), int(str(line["step"]))) for line in read_jsonl(runs.path / "metrics.jsonl")]
    assert [one for one in rows if one["line"] % 2 == 0] == expected
    assert len(expected) > STEPS
    config: dict[str, Any] = {}
    for one in read:
        config |= one.get("config", {}).get("update", {}) if one["type"] == "config" else {}
    record = json.loads((runs.path / "run.json").read_text(encoding="utf-8"))
    assert config["config"]["batch"] == {"examples": 8, "max_tokens": 4096}
    assert config["receipt"] == record["receipt"]
    (artifact,) = [one["artifact"] for one in read if one["type"] == "artifact"]
    assert artifact["name"] == f"run-{record['id']}"
    assert {one["path"] for one in artifact["manifest"]["contents"]} == {"run.json", "config.yaml"}
    kept = [Path(one["local_path"]) for one in artifact["manifest"]["contents"] if one["path"] == "run.json"]
    assert json.loads(kept[0].read_text(encoding="utf-8"))["final"] == record["final"]
    metrics = [one["metric"] for one in read if one["type"] == "metric"]
    assert {"glob_name": "*", "step_metric": "step"}.items() <= metrics[-1].items()
    assert any(one["type"] == "stats" for one in read)
    assert f"galpaca sync {runs.path}" in done.stdout


@pytest.mark.slow
def test_a_run_killed_in_steps_that_it_takes_again_is_whole(runs: Runs) -> None:
    """Without a network: killed with W&B, and killed again in the steps that follow its checkpoint."""
    process = runs.slow()
    until(lambda: bool(runs.logs()) and runs.logs()[0].stat().st_size > BLOCK_BYTES, process)
    until(lambda: runs.step() % EVERY > 6, process)
    first = runs.step()
    kill_all(process)
    process = runs.slow(seconds=0.2)
    until(lambda: first // EVERY * EVERY < runs.step() < first and len(runs.logs()) == 2, process)
    kill_all(process)
    runs.finish()
    assert len(runs.logs()) == 3
    assert {file.name for file in runs.logs()} == {f"run-{runs.id}.wandb"}
    assert [one for one in records(runs.logs()[0]) if one["type"] == "history"], "nothing of it had been written"
    assert_each_line_once(runs.rows(), runs.path / "metrics.jsonl")


@pytest.mark.slow
def test_a_run_killed_online_goes_on_with_its_curve(runs: Runs, wandb_server: WandbServer) -> None:
    """What a log holds and what has arrived differ when W&B is killed; the server has every line once all the same."""
    online = wandb_server.environment
    process = runs.slow(env=online, seconds=0.4)  # W&B sends the first rows after a quarter of a minute
    until(lambda: any(run.history for run in wandb_server.runs.values()), process)
    until(lambda: runs.step() % EVERY > 6, process)
    first = runs.step()
    kill_all(process)
    (log,) = runs.logs()
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 4])  # as a machine that has lost its power leaves it
    assert len(runs.rows()) < len(wandb_server.runs[runs.id].history)
    process = runs.slow(env=online, seconds=0.2)
    until(lambda: first // EVERY * EVERY < runs.step() < first and len(runs.logs()) == 2, process)
    kill_all(process)
    assert wandb_server.runs[runs.id].finishes == []
    done = runs.finish(env=online)
    assert list(wandb_server.runs) == [runs.id]
    received = wandb_server.runs[runs.id]
    assert_each_line_once(received.history, runs.path / "metrics.jsonl")
    own = [one["_step"] for one in received.history]
    assert own == sorted(set(own))
    assert received.finishes == [0]
    assert received.config["config"]["batch"]["examples"] == 8
    assert received.artifacts == [f"run-{runs.id}"]
    assert received.events, "figures of the machine"
    assert received.display_name == "test"
    assert "galpaca sync" not in done.stdout


@pytest.mark.slow
def test_lines_of_a_start_without_a_network_are_uploaded_by_the_next_with_one(
    runs: Runs, wandb_server: WandbServer
) -> None:
    root = "run.root=runs"  # as it is by default; W&B's command did not find what was relative
    process = runs.start(root, hook="slow_steps", hook_arguments=(0.05,))
    until(lambda: runs.step() == EVERY + 3, process)
    process.send_signal(signal.SIGTERM)
    assert completed(process).returncode == 143
    done = completed(runs.start(root, env=wandb_server.environment))
    assert (done.returncode, done.stderr) == (0, "")
    assert_each_line_once(wandb_server.runs[runs.id].history, runs.path / "metrics.jsonl")
    assert runs.sync("--dry-run").stdout.count("uploaded\n") == len(runs.logs())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["nobody is there", "a wrong key", "no key"])
def test_whatever_is_wrong_with_the_network_a_run_ends_well(runs: Runs, wandb_server: WandbServer, how: str) -> None:
    """Training took a minute and a half to begin when nobody answered, and minutes to end."""
    environment = (
        wandb_server.environment
        | {
            "nobody is there": {"WANDB_BASE_URL": "http://127.0.0.1:1"},
            "a wrong key": {"WANDB_API_KEY": "f" * 40},
            "no key": {"WANDB_API_KEY": ""},
        }[how]
    )
    before = time.monotonic()
    done = runs.finish(env=environment)
    assert time.monotonic() - before < 100  # on a machine with others; W&B itself would take longer by itself
    assert "Traceback" not in done.stderr
    told = {"nobody is there": "does not respond", "a wrong key": "rejected the run", "no key": ""}[how]
    assert done.stderr.count(f"W&B {told}") == (how != "no key")
    assert f"galpaca sync {runs.path}" in done.stdout
    assert_each_line_once(runs.rows(), runs.path / "metrics.jsonl")
    assert wandb_server.runs == {}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_goes_on_without_w_and_b(runs: Runs, number: signal.Signals) -> None:
    """Its process takes SIGTERM, which some schedulers send to every process of a job, as badly as SIGKILL."""
    process = runs.slow()
    until(lambda: runs.step() == 5, process)
    os.kill(service_of(process), signal.SIGUSR1)  # which it takes well
    until(lambda: runs.step() == 8, process)
    os.kill(service_of(process), number)
    until(lambda: runs.step() == EVERY + 3, process)
    process.send_signal(signal.SIGTERM)
    stopped = completed(process)
    assert stopped.returncode == 143, stopped.stderr
    assert stopped.stderr.count("W&B logging stopped") == 1
    assert "Traceback" not in stopped.stderr
    runs.finish()
    assert_each_line_once(runs.rows(), runs.path / "metrics.jsonl")


@pytest.mark.slow
def test_a_service_that_hangs_is_not_waited_for(runs: Runs) -> None:
    process = runs.start(hook="impatient", hook_arguments=(2.0,))
    until(lambda: runs.step() == 5, process)
    os.kill(service_of(process), signal.SIGSTOP)
    done = completed(process, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("W&B logging stopped") == 1
    assert "Traceback" not in done.stderr
    assert f"galpaca sync {runs.path}" in done.stdout


@pytest.mark.slow
def test_a_network_that_dies_in_the_midst(runs: Runs, wandb_server: WandbServer) -> None:
    """W&B tries for hours to send what it has; a run that has ended does not wait for it."""
    with serving() as dying:
        process = runs.start(env=dying.environment, hook="impatient", hook_arguments=(3.0,))
        until(lambda: runs.step() == 5, process)
    done = completed(process, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("W&B logging stopped") == 1
    assert "Traceback" not in done.stderr
    assert f"galpaca sync {runs.path}" in done.stdout
    assert "not verified" in runs.sync("--dry-run").stdout
    done = runs.sync(env=wandb_server.environment)
    assert done.returncode == 0, done.stderr
    assert_each_line_once(wandb_server.runs[runs.id].history, runs.path / "metrics.jsonl")


@pytest.mark.slow
def test_sync_uploads_each_line_once(runs: Runs, wandb_server: WandbServer) -> None:
    """Of a run that was killed with lines in no log, went on, and was killed again for good."""
    for until_step in (EVERY + 5, 2 * EVERY + 5):
        process = runs.slow(seconds=0.02)
        until(lambda: runs.step() >= until_step, process)  # noqa: B023 - called here
        kill_all(process)
    listed = runs.sync("--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("not uploaded") == 2
    assert "lines of metrics.jsonl are in no log" in listed.stdout
    wandb_server.drops = True
    failed = runs.sync(env=wandb_server.environment)
    assert failed.returncode == 1
    assert "the run is not completely uploaded to W&B" in failed.stderr
    assert "not uploaded" in runs.sync("--dry-run").stdout
    wandb_server.drops = False
    wandb_server.runs.clear()
    done = runs.sync(env=wandb_server.environment)
    assert done.returncode == 0, done.stderr
    assert_each_line_once(wandb_server.runs[runs.id].history, runs.path / "metrics.jsonl")
    again = runs.sync(env=wandb_server.environment | {"WANDB_BASE_URL": "http://127.0.0.1:1"})
    assert again.returncode == 0, "there is nothing to upload, and nobody is asked"
    assert "not uploaded" not in again.stdout


@pytest.mark.slow
def test_sync_of_a_run_that_is_running_or_has_no_network(runs: Runs, wandb_server: WandbServer) -> None:
    process = runs.slow()
    until(lambda: runs.step() == 3, process)
    live = runs.sync(env=wandb_server.environment)
    assert live.returncode == 1
    assert "the run is still running" in live.stderr
    assert " running" in live.stdout
    kill_all(process)
    nobody = runs.sync(env=wandb_server.environment | {"WANDB_BASE_URL": "http://127.0.0.1:1"})
    assert nobody.returncode == 1
    assert "does not respond" in nobody.stderr
    assert "Traceback" not in nobody.stderr
    no_key = runs.sync(env={"WANDB_API_KEY": "", "WANDB_BASE_URL": wandb_server.url})
    assert no_key.returncode == 2
    assert "wandb login" in no_key.stderr
    assert wandb_server.runs == {}


def test_sync_refuses_what_is_no_run_or_has_nothing(run: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "galpaca", "sync", "--dry-run", str(run), str(tmp_path), str(tmp_path / "none")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "3 problems" in done.stderr
    assert "the run logged nothing to W&B" in done.stderr
    assert "not a run folder" in done.stderr
    assert "no such folder" in done.stderr


SCRIPT = """
import sys
from pathlib import Path
from galpaca.training.tracking.logger import WandbLogger
from galpaca.training.tracking.service import Run

folder = Path(sys.argv[1])
logger = WandbLogger(Run(folder, "name", "run1", "galpaca", tags=("t",)), folder / "m", folder / "s", [])
logger.log_metrics({"loss/train": 1.0, "numerics/lr": 0.1}, step=1)
logger.log_samples(0, [{"instruction": "Name it.", "input": "x", "answer": "one", "category": "c"}])
logger.log_samples(1, [{"instruction": "Name it.", "input": "x", "answer": "two"}])
logger.alert("The loss is not finite", "Step 1")
logger.mark_preempting()
logger.finalize("failed")
logger.log_metrics({"loss/train": 1.0, "numerics/lr": 0.1}, step=2)
"""


def own_script(folder: Path, script: str, env: dict[str, str]) -> None:
    own = {"HOME": str(folder), "WANDB_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **own, **env},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.slow
def test_samples_alerts_and_a_run_that_comes_back(tmp_path: Path, wandb_server: WandbServer) -> None:
    own_script(tmp_path, SCRIPT, wandb_server.environment)
    received = wandb_server.runs["run1"]
    assert received.alerts == ["The loss is not finite: Step 1"]
    assert received.preempting >= 1
    assert received.finishes == [1], "W&B takes what ends well for finished, preempted or not"
    assert [one.get("samples/step") for one in received.history] == [None, 0, 1]
    assert [one["step"] for one in received.history] == [1, 0, 1]


@pytest.mark.slow
def test_samples_without_a_network(tmp_path: Path) -> None:
    own_script(tmp_path, SCRIPT, {})
    (log,) = [file for file in tmp_path.glob("wandb/*run-*/*.wandb") if not file.parent.is_symlink()]
    read = records(log)
    items = [one["history"]["item"] for one in read if one["type"] == "history"]
    paths = [log.parent / "files" / item["samples/answers.path"] for item in items[1:]]
    rows = [json.loads(path.read_text(encoding="utf-8"))["data"] for path in paths]
    assert rows == [[["Name it.\n\nx", "c", "one", ""]], [["Name it.\n\nx", "", "two", "step 0: one"]]]
    assert [one["alert"]["title"] for one in read if one["type"] == "alert"] == ["The loss is not finite"]
    assert any(one["type"] == "preempting" for one in read)


LOG_LINES = """
import json, sys
from pathlib import Path
from galpaca.training.tracking.logger import WandbLogger
from galpaca.training.tracking.rows import named
from galpaca.training.tracking.service import Run

folder = Path(sys.argv[1])
logger = WandbLogger(Run(folder, "test", "run1", "galpaca"), folder / "none", folder / "none", [])
for text in (folder / "metrics.jsonl").read_text().splitlines():
    line = json.loads(text)
    logger.log_metrics(named(line), step=line["step"])
logger.close()
"""


@pytest.mark.slow
def test_a_log_that_ends_between_a_summary_and_its_row(tmp_path: Path, wandb_server: WandbServer) -> None:
    """W&B writes a row's summary first. The server's summary told of a line that it did not have, which was lost."""
    run = tmp_path / "run"
    run.mkdir()
    lines = [{"step": step, "loss": 1 / step, "lr": 0.1} for step in range(1, 21)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (run / "run.json").write_text('{"id": "run1"}', encoding="utf-8")
    own_script(run, LOG_LINES, {})
    (log,) = [file for file in run.glob("wandb/*run-*/*.wandb") if not file.parent.is_symlink()]
    whole = log.read_bytes()
    for size in range(len(whole) * 2 // 3, len(whole), 16):  # a record is longer
        log.write_bytes(whole[:size])
        last = records(log)[-1]
        if last["type"] == "summary" and "line" in last["summary"]["update"]:
            break
    number = last["summary"]["update"]["line"]
    assert [one["history"]["item"]["line"] for one in records(log) if one["type"] == "history"][-1] == number - 4
    line = [sys.executable, "-m", "galpaca", "sync", str(run)]
    environment = {**os.environ, **wandb_server.environment, "HOME": str(tmp_path), "WANDB_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_each_line_once(wandb_server.runs["run1"].history, run / "metrics.jsonl")
