"""Rehearsals: really killed and resumed, figures from what they wrote, and nothing left behind."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from conftest import DEMO, REPOSITORY, Started, Train, command, completed
from faults.rehearsals import contents, processes_in

from galpaca.runs.lock import locked

Begin = Callable[..., Started]
Rehearse = Callable[..., CompletedProcess[str]]

FSDP = ("strategy=fsdp", "trainer.devices=2")
LONG = ("trainer.max_steps=40", "trainer.max_epochs=100")


@pytest.fixture
def begin(tmp_path: Path, tokenizer_folder: Path, records_file: Path, server: str) -> Begin:
    """Starts ``galpaca rehearse`` on the tests' tiny run."""

    def begin(*arguments: str, env: Mapping[str, str] | None = None) -> Started:
        options = [argument for argument in arguments if argument.startswith("--")]
        overrides = [argument for argument in arguments if not argument.startswith("--")]
        line = command(tmp_path, tokenizer_folder, records_file, *overrides)
        line[1:2] = [str(REPOSITORY / "src" / "galpaca" / "__main__.py"), "rehearse", *options]
        hook = {"hook": "faults.rehearsals:fork_children", "hook_arguments": (server,)}
        return Started(server, line, tmp_path, env, **hook)

    return begin


@pytest.fixture
def rehearse(begin: Begin) -> Rehearse:
    return lambda *arguments: completed(begin(*arguments), 120)


def wait_for(found: Callable[[], Any], process: Started) -> Any:
    deadline = time.monotonic() + 60
    while not (value := found()):
        assert process.poll() is None, completed(process).stderr
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
    return value


def launched(begin: Begin, *arguments: str) -> list[Started]:
    """Two processes as torchrun starts them, with the store that it offers to one start of a run only."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
        **{"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"},
    }
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [begin(*LONG, *FSDP, *arguments, env={**shared, **rank}) for rank in ranks]


def nothing_is_left(tmp_path: Path) -> None:
    assert not (tmp_path / "runs" / "rehearsal").exists()
    assert processes_in(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [("strategy=single",), FSDP], ids=["one process", "two under FSDP"])
def test_the_real_run_is_left_alone_and_the_figures_are_reported(
    train: Train, rehearse: Rehearse, tmp_path: Path, strategy: tuple[str, ...]
) -> None:
    done = train()
    assert done.returncode == 0, done.stderr
    before = contents(tmp_path / "runs" / "test")

    done = rehearse(*LONG, *strategy, "data.val_fraction=0.2", "logger=csv", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["verdict"] == "fits"
    assert figures["killed_after_step"] > 10
    assert (figures["steps"], figures["num_steps"]) == (20, 40)
    assert figures["ranks"] == len(strategy)
    assert figures["mfu"] is None
    assert figures["disk_bytes"] == 0, "the real run has its checkpoint and its model already"
    assert figures["time"] == "00:15:00"
    for name in (
        *("peak_memory_bytes", "device_memory_bytes", "tokens_per_second", "start_seconds", "resume_seconds"),
        *("checkpoint_bytes", "stall_seconds", "write_seconds", "last_checkpoint_seconds", "export_seconds"),
        *("reload_seconds", "free_bytes", "num_tokens"),
    ):
        assert figures[name] > 0, name
    assert all(figures["run_seconds"][part] > 0 for part in ("start", "steps", "checkpoints", "validations", "release"))
    assert done.stderr.count("phase") == 3, "a line for each phase"

    assert contents(tmp_path / "runs" / "test") == before
    nothing_is_left(tmp_path)


@pytest.mark.slow
def test_what_a_person_sees_and_what_is_kept(rehearse: Rehearse, tmp_path: Path) -> None:
    """The folder of the rehearsal before goes first; there is one of this time then."""
    home = tmp_path / "runs" / "rehearsal" / "test"
    (home / "run").mkdir(parents=True)
    (home / "run" / "stale").touch()
    samples = (f"samples.prompts={DEMO / 'samples.jsonl'}", "samples.max_new_tokens=2", "samples.every_steps=5")
    done = rehearse(*LONG, *samples, "--keep")
    assert done.returncode == 0, done.stderr
    for label in ("peak memory", "speed", "MFU", "start", "save", "export", "disk", "whole run", "--time=00:15:00"):
        assert label in done.stdout
    assert done.stdout.split()[-2:] == ["verdict", "fits"]
    assert not (home / "run" / "stale").exists()
    record = json.loads((home / "run" / "run.json").read_text(encoding="utf-8"))
    assert [start["step"] for start in record["starts"]] == [0, 10]
    assert record["recipe"]["trainer.longest_steps"] == 20
    assert record["starts"][0]["seconds"]["samples"] > 0
    assert (record["plan"]["steps"], record["whole_plan"]["steps"]) == (20, 40)
    assert (home / "run" / "model" / "model.safetensors").is_file()
    assert (home / "rank-00000.log").is_file()


@pytest.mark.slow
def test_no_room_for_the_real_run_and_too_few_steps_to_kill(rehearse: Rehearse, tmp_path: Path) -> None:
    """A run of one step saves and ends at once; saying nothing would pass for a resume that works."""
    done = rehearse("trainer.max_steps=1", "checkpoint.keep_last=1000000000", "checkpoint.every_minutes=1")
    assert done.returncode == 1
    assert "of disk space free" in done.stderr
    assert "checkpoint.keep_last" in done.stderr
    assert "skipped, because" in done.stdout
    assert "skipped: the run ended first" in done.stdout
    assert "whole run" in done.stdout
    nothing_is_left(tmp_path)


@pytest.mark.slow
class TestFailures:
    def test_what_training_would_refuse_is_refused_alike(self, rehearse: Rehearse, tmp_path: Path) -> None:
        done = rehearse("batch.max_tokens=8", *FSDP)
        assert done.returncode == 2
        assert "batch.max_tokens" in done.stderr
        assert "a micro-batch holds at most 8" in done.stderr
        assert "fix: batch.max_tokens=" in done.stderr
        assert "phase 1 of 3" in done.stderr
        log = tmp_path / "runs" / "rehearsal" / "test" / "rank-00000.log"
        assert str(log) in done.stderr
        assert log.is_file()
        assert processes_in(tmp_path) == []

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("optim.learning_rate=1", "optim.learning_rate"),
            ("run.name=rehearsal/mine", "run.name"),
            ("trainer.num_nodes=2", "trainer.num_nodes"),
            ("--steps=1", "--steps"),
        ],
    )
    def test_a_mistake_is_reported_before_anything_is_made(
        self, rehearse: Rehearse, tmp_path: Path, argument: str, message: str
    ) -> None:
        done = rehearse(argument)
        assert done.returncode == 2
        assert message in done.stderr
        assert not (tmp_path / "runs").exists()

    def test_two_rehearsals_of_a_run_at_once(self, rehearse: Rehearse, tmp_path: Path) -> None:
        place = tmp_path / "runs" / "rehearsal"
        place.mkdir(parents=True)
        with locked(place / ".test.lock"):
            done = rehearse()
        assert done.returncode == 2
        assert "another process" in done.stderr

    def test_a_run_that_an_earlier_rehearsal_left_alive(self, rehearse: Rehearse, tmp_path: Path) -> None:
        """Its folder would be taken away beneath it."""
        folder = tmp_path / "runs" / "rehearsal" / "test" / "run"
        folder.mkdir(parents=True)
        with locked(folder / "run.lock"):
            done = rehearse()
        assert done.returncode == 2
        assert folder.is_dir()

    def test_a_process_that_the_system_ends(self, begin: Begin, tmp_path: Path) -> None:
        process = begin(*LONG, "--json")
        lock = tmp_path / "runs" / "rehearsal" / "test" / "run" / "run.lock"
        os.kill(json.loads(wait_for(lambda: lock.is_file() and lock.read_text(), process))["pid"], signal.SIGKILL)
        done = completed(process, 60)
        assert done.returncode == 1
        assert "terminated by SIGKILL" in done.stderr
        assert json.loads(done.stdout)["verdict"] == "does not fit"
        assert processes_in(tmp_path) == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
    def test_a_signal_takes_everything_away(self, begin: Begin, tmp_path: Path, number: signal.Signals) -> None:
        process = begin(*LONG, *FSDP)
        metrics = tmp_path / "runs" / "rehearsal" / "test" / "run" / "metrics.jsonl"
        wait_for(metrics.is_file, process)
        process.send_signal(number)
        done = completed(process, 60)
        assert done.returncode == 143, done.stderr
        assert number.name in done.stderr
        nothing_is_left(tmp_path)

    def test_a_rehearsal_that_takes_too_long(self, rehearse: Rehearse, tmp_path: Path) -> None:
        done = rehearse(*LONG, "--minutes=0.005")
        assert done.returncode == 1
        assert "longer than 0.005 minutes" in done.stderr
        assert processes_in(tmp_path) == []


@pytest.mark.slow
class TestSeveralProcesses:
    """Each rank's process is started by a launcher, and they find each other through files."""

    def test_they_act_as_one(self, begin: Begin, tmp_path: Path) -> None:
        first, second = (completed(process, 120) for process in launched(begin, "--json"))
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        figures = json.loads(first.stdout)
        assert (figures["ranks"], figures["steps"]) == (2, 20)
        assert figures["killed_after_step"] > 10
        assert (second.stdout, second.stderr) == ("", "")
        nothing_is_left(tmp_path)

    def test_a_signal_to_one_ends_all(self, begin: Begin, tmp_path: Path) -> None:
        processes = launched(begin)
        metrics = tmp_path / "runs" / "rehearsal" / "test" / "run" / "metrics.jsonl"
        wait_for(metrics.is_file, processes[0])
        processes[1].send_signal(signal.SIGTERM)
        done = [completed(process, 60) for process in processes]
        # Of a job the highest code counts, which is that of rank 0.
        assert [one.returncode for one in done] == [143, 1], "".join(one.stderr for one in done)
        nothing_is_left(tmp_path)

    def test_one_that_fails_ends_all_and_says_why(self, begin: Begin, tmp_path: Path) -> None:
        """Its neighbour waited in a collective for half an hour."""
        processes = launched(begin)
        metrics = tmp_path / "runs" / "rehearsal" / "test" / "run" / "metrics.jsonl"
        wait_for(metrics.is_file, processes[0])
        parents = {process.pid for process in processes}
        os.kill(max(set(processes_in(tmp_path)) - parents), signal.SIGKILL)
        first, second = (completed(process, 60) for process in processes)
        assert (first.returncode, second.returncode) == (1, 1)
        assert "does not fit" in first.stderr or "failed" in first.stderr
        assert processes_in(tmp_path) == []

    def test_what_rank_0_refuses_ends_all(self, begin: Begin, tmp_path: Path) -> None:
        place = tmp_path / "runs" / "rehearsal"
        place.mkdir(parents=True)
        with locked(place / ".test.lock"):
            done = [completed(process, 60) for process in launched(begin)]
        assert [one.returncode for one in done] == [2, 2]
        assert "another process" in done[0].stderr
        assert not list(place.glob(".ranks-*"))
