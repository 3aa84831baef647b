"""Signals in training: saved, ended with 143, and gone on from as if nothing had been."""

import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import MadeOnce, Train, completed, read_jsonl
from faults.kills import Bench, assert_equal_runs

TERM, USR1 = int(signal.SIGTERM), int(signal.SIGUSR1)
CASES = {
    "warned in one rank": ("fsdp", (), "faults.crash:signal_rank_at_step", (3, USR1, 1), "after step 4"),
    "terminated in one rank": ("ddp", (), "faults.crash:signal_rank_at_step", (3, TERM, 1), "after step 4"),
    # Some schedulers signal helpers too: torch's data workers died of it, and the run with them.
    "all processes, with data workers": (
        "fsdp",
        ("trainer.data_workers=2",),
        "faults.crash:signal_group_at_step",
        (3, TERM),
        "after step",
    ),
    "in a validation": (
        "fsdp",
        (),
        "faults.crash:signal_in_validation",
        (0, USR1, 1),
        "in the validation after step 2",
    ),
    "in the last validation": (
        "single",
        ("trainer.val_every_steps=100",),
        "faults.crash:signal_in_validation",
        (0, TERM, 0),
        "in the validation after step 6",
    ),
    "in a validation of a step that is not saved": (
        "single",
        ("checkpoint.every_steps=4",),
        "faults.crash:signal_in_validation",
        (0, TERM, 0),
        "in the validation after step 2",
    ),
}


@pytest.fixture
def bench(tmp_path: Path, server: str, tokenizer_folder: Path, records_file: Path, request: Any) -> Bench:
    strategy, overrides, *_ = CASES[request.param]
    bench = Bench(tmp_path, server, tokenizer_folder, records_file, strategy, asynchronous=True)
    bench.chosen = (*bench.chosen, "data.val_fraction=0.4", *overrides)
    return bench


@pytest.fixture
def straight(bench: Bench, made_once: MadeOnce) -> Path:
    """The run that gets no signal, one for all cases that differ in the signal alone."""

    def make(folder: Path) -> None:
        bench.straight()
        bench.path("straight").rename(folder / "straight")

    name = "-".join(["signals", *(word.replace("=", "-") for word in bench.chosen)])
    return made_once(name, make) / "straight"


@pytest.mark.slow
@pytest.mark.parametrize(("bench", "case"), [(name, name) for name in CASES], indirect=["bench"], ids=list(CASES))
def test_a_signal_saves_and_the_run_goes_on(bench: Bench, straight: Path, case: str) -> None:
    """Ranks that saw a signal at different steps waited for each other; one in a validation was seen minutes later."""
    *_, hook, arguments, message = CASES[case]
    done = completed(bench.run("stopped", hook=hook, hook_arguments=arguments))
    assert done.returncode == 143, done.stderr
    assert message in done.stderr
    again = completed(bench.run("stopped"))
    assert again.returncode == 0, again.stderr
    assert_equal_runs(straight, bench.path("stopped"))


def processes_in(folder: Path) -> list[str]:
    """Numbers of the processes whose working folder it is."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                found.append(entry.name)
    return found


class TestHangs:
    """A rank that stands still: the run ends in time, and says which."""

    OVERRIDES = ("strategy=fsdp", "trainer.devices=2", "hang.minutes=0.05", "checkpoint.every_steps=1")
    PATIENT = ("hang.minutes=2",)  # a busy machine may stand still for three seconds

    @pytest.mark.slow
    def test_a_rank_in_its_own_code(self, train: Train, tmp_path: Path) -> None:
        done = train(*self.OVERRIDES, hook="faults.crash:sleep_in_step", hook_arguments=(2, 1), timeout=200)
        assert done.returncode == 75
        deadline = time.monotonic() + 30
        while (left := processes_in(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left == [], "a rank that nobody ends would keep its GPU"
        assert "error: " in done.stderr
        assert "step 3 has taken" in done.stderr
        assert "rank 1 on" in done.stderr
        assert "is late: at 'step 3: forward' in sleep_before_step" in done.stderr
        first, second = sorted((tmp_path / "runs/test/stacks").glob("*/rank-*.txt"))
        assert "sleep_before_step" in second.read_text(encoding="utf-8")
        assert "all_gather" in first.read_text(encoding="utf-8").splitlines()[0]
        assert train(*self.OVERRIDES, *self.PATIENT).returncode == 0  # goes on, and the folder is free
        assert [line["step"] for line in read_jsonl(tmp_path / "runs/test/metrics.jsonl") if "loss" in line] == [
            1,
            2,
            3,
            4,
        ]

    @pytest.mark.slow
    def test_a_stopped_rank_is_woken_to_tell_where(self, train: Train, tmp_path: Path) -> None:
        stop = (2, int(signal.SIGSTOP), 1)
        steps = ("trainer.max_steps=2000", "trainer.max_epochs=1000", "checkpoint.every_steps=2000")
        done = train(
            *self.OVERRIDES[:-1], *steps, hook="faults.crash:signal_rank_at_step", hook_arguments=stop, timeout=200
        )
        assert done.returncode == 75
        assert "rank 1 was stopped (SIGSTOP)" in done.stderr
        assert len(list((tmp_path / "runs/test/stacks").glob("*/rank-*.txt"))) == 2

    @pytest.mark.slow
    def test_a_suspended_job_does_not_hang(self, train: Train, tmp_path: Path) -> None:
        """A scheduler that gives the node to another job for a while was taken for a step of that length."""
        suspended = {"hook": "faults.crash:suspend_at_step", "hook_arguments": (2, 12.0)}
        assert train("hang.minutes=0.1", "checkpoint.every_steps=4", **suspended).returncode == 0
        assert not (tmp_path / "runs/test/stacks").exists()

    @pytest.mark.slow
    def test_foreign_code_that_keeps_the_lock_of_python_is_ended(self, train: Train) -> None:
        """No thread of Python runs then; another process writes its stacks and kills it."""
        keeps = {"hook": "faults.crash:keep_the_lock_at_step", "hook_arguments": (2, 2.0)}
        done = train("hang.minutes=0.05", **keeps)
        assert done.returncode == -signal.SIGKILL
        assert "foreign code holds Python's lock" in done.stderr
        assert "keep_the_lock_before_step" in done.stderr

    @pytest.mark.slow
    def test_steps_below_the_limit_leave_nothing(self, train: Train, tmp_path: Path) -> None:
        assert train(*self.OVERRIDES, *self.PATIENT).returncode == 0
        assert not (tmp_path / "runs/test/stacks").exists()
