"""The parts of a rehearsal: its command, its ports, how its processes talk, what it makes of a failure."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from galpaca.app.config.composition import compose
from galpaca.app.rehearsal.channel import Channel, Order, Report, launch_of
from galpaca.app.rehearsal.child import Child
from galpaca.app.rehearsal.failures import failure
from galpaca.app.rehearsal.plan import RehearsalPlan, check_name, environment_of
from galpaca.app.rehearsal.rehearse import _home
from galpaca.errors import GalpacaError, InputError, StoppedBySignal
from galpaca.runs.recipe import settings_of


def plan_of(tmp_path: Path, *overrides: str, num_steps: int = 20) -> RehearsalPlan:
    given = ("+experiment=galpaca67b", f"run.root={tmp_path}", *overrides)
    return RehearsalPlan(compose(given)[0], given, num_steps)


class TestTheCommand:
    def test_it_composes_to_the_run_with_a_few_keys_changed(self, tmp_path: Path) -> None:
        overrides = ("logger=wandb", "logger.project=mine", "+logger.entity=x", "run.name='some/a=b'", "seed=7")
        given = ("+experiment=galpaca67b", f"run.root={tmp_path}", *overrides)
        real, _ = compose([override for override in given if not override.startswith("+logger")])
        plan = RehearsalPlan(real, given, 20)
        rehearsed, _ = compose(plan.command[3:])
        assert rehearsed.run.name == "rehearsal/some--a=b/run" == plan.folder.name
        assert rehearsed.logger == {"_target_": "galpaca.training.loggers.none"}
        assert (rehearsed.trainer.longest_steps, rehearsed.checkpoint.every_steps, rehearsed.seed) == (20, 10, 7)
        same = {"run", "logger", "trainer", "checkpoint", "hang", "samples"}
        assert {k: v for k, v in vars(rehearsed).items() if k not in same} == {
            k: v for k, v in vars(real).items() if k not in same
        }
        assert replace(rehearsed.trainer, longest_steps=None, val_every_steps=None) == real.trainer
        assert replace(rehearsed.samples, every_steps=None) == real.samples
        assert replace(rehearsed.hang, requeue=True) == real.hang

    def test_a_rehearsals_recipe_is_not_the_runs(self, tmp_path: Path) -> None:
        """So its checkpoints are never taken for the run's."""
        plan = plan_of(tmp_path)
        rehearsed, _ = compose(plan.command[3:])
        real = settings_of(asdict(plan.config))
        assert settings_of(asdict(rehearsed)) == {**real, "trainer.longest_steps": 20}
        assert real["trainer.longest_steps"] is None

    @pytest.mark.parametrize(("num_steps", "max_steps", "every"), [(20, "null", 10), (20, "6", 3), (3, "100", 1)])
    def test_there_is_a_checkpoint_on_the_way(self, tmp_path: Path, num_steps: int, max_steps: str, every: int) -> None:
        assert plan_of(tmp_path, f"trainer.max_steps={max_steps}", num_steps=num_steps).every_steps == every

    def test_a_run_in_the_place_of_rehearsals_is_refused(self) -> None:
        with pytest.raises(InputError, match="for rehearsals"):
            check_name(compose(["+experiment=demo", "run.name=rehearsal/x"])[0])


class TestThePorts:
    def test_no_phase_takes_that_of_another_or_of_the_job(self) -> None:
        """A killed process may hold its port for a while, and another job of the node has the next number."""
        job = {"SLURM_JOB_ID": "123456"}
        ports = [int(environment_of(phase, job)["MASTER_PORT"]) for phase in (1, 2)]
        assert ports == [15456, 12456]

    def test_a_given_port_is_where_they_begin(self) -> None:
        found = [environment_of(phase, {"MASTER_PORT": "29500"})["MASTER_PORT"] for phase in (1, 2)]
        assert found == ["26500", "23500"]
        assert environment_of(2, {"MASTER_PORT": "4000"})["MASTER_PORT"] == "10000"

    def test_in_a_terminal_a_free_one_is_found(self) -> None:
        assert "MASTER_PORT" not in environment_of(1, {})

    def test_the_store_of_torchrun_is_left_alone(self) -> None:
        """It keeps what killed processes sent each other, and those of the next phase would believe it."""
        environment = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": "29500"}
        assert environment_of(1, environment)["TORCHELASTIC_USE_AGENT_STORE"] == "False"


class TestTheChannel:
    def test_an_order_is_for_those_it_names(self, tmp_path: Path) -> None:
        channel = Channel(tmp_path, "job")
        channel.open()
        channel.give(Order(1, {"1": "me"}, "start", phase=2))
        assert channel.order("me") == Order(1, {"1": "me"}, "start", phase=2)
        assert channel.order("another") is None

    def test_what_an_earlier_rehearsal_has_left_counts_for_nothing(self, tmp_path: Path) -> None:
        """Under torchrun, launches may look alike: a rank started before rank 0 had made room."""
        earlier, channel = Channel(tmp_path, "same"), Channel(tmp_path, "same")
        earlier.open()
        earlier.give(Order(5, {"1": "old"}, "end", code=1))
        earlier.report(1, Report(number=5))
        report = Report()
        assert channel.order(report.id) is None
        channel.open()
        assert channel.last_report(1) is None
        channel.report(1, report)
        assert channel.last_report(1) == report

    def test_a_report_before_there_is_a_folder_is_lost_and_no_error(self, tmp_path: Path) -> None:
        channel = Channel(tmp_path / "rehearsal", "job")
        channel.report(1, Report())
        assert channel.last_report(1) is None
        assert not channel.folder.exists()

    def test_a_closed_one_leaves_nothing(self, tmp_path: Path) -> None:
        channel = Channel(tmp_path / "rehearsal", "job")
        channel.open()
        channel.report(1, Report())
        channel.close()
        assert list((tmp_path / "rehearsal").iterdir()) == []

    def test_its_name_is_the_launchs(self) -> None:
        job = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "1", "MASTER_PORT": "1"}
        assert launch_of(job) == "12-0-1"
        assert launch_of({"RANK": "0", "TORCHELASTIC_RUN_ID": "a/b", "MASTER_ADDR": "n1", "MASTER_PORT": "7"}) == (
            "a-b-0-n1-7"
        )


def test_a_child_takes_its_own_children_with_it(tmp_path: Path) -> None:
    grandchild = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    )
    log = tmp_path / "log"
    child = Child(
        [sys.executable, "-c", f"{grandchild} print('ready', flush=True); time.sleep(60)"], os.environ, log, 1
    )
    while "ready" not in log.read_text():
        assert child.poll() is None
        time.sleep(0.01)
    group = child._process.pid
    assert len(members(group)) == 2
    child.kill()
    assert child.poll() == -signal.SIGKILL
    assert members(group) == []
    child.kill()  # again: nothing happens


def members(group: int) -> list[str]:
    lines = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if line.split()[0] == str(group) and "Z" not in line.split()[1]]


class FakeCoordinator:
    """Tells whether the folder was still there when the processes were ended."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.was_there: bool | None = None

    def kill(self) -> None:
        self.was_there = self.home.is_dir()


@pytest.mark.parametrize("reason", [None, StoppedBySignal("stopped"), GalpacaError("no room")])
def test_the_folder_goes_only_when_nobody_writes_in_it(tmp_path: Path, reason: BaseException | None) -> None:
    """It would come back while it is being removed. It stays where something failed."""
    plan = plan_of(tmp_path)
    plan.root.mkdir(parents=True)
    coordinator = FakeCoordinator(plan.home)
    with suppress(StoppedBySignal, GalpacaError), _home(plan, coordinator, keep=False):  # type: ignore[arg-type]
        if reason:
            raise reason
    assert coordinator.was_there
    assert plan.home.exists() == isinstance(reason, GalpacaError)


OUT_OF_MEMORY = GalpacaError(
    "GPU out of memory",
    where="batch.max_tokens=4096",
    why="tried to allocate",
    fix="one of these:\n  1. batch.max_tokens=2048\n  2. more GPUs",
)
PROBLEMS = """error: 2 problems:
  model.path: no such folder
    why: it is not there
  data.path: no such file
  fix: look again
"""


class TestFailures:
    @pytest.fixture
    def plan(self, tmp_path: Path) -> RehearsalPlan:
        plan = plan_of(tmp_path)
        plan.home.mkdir(parents=True)
        return plan

    def test_the_rank_that_says_why_comes_before_those_that_ended_because_of_it(self, plan: RehearsalPlan) -> None:
        plan.log(0).write_text("--- phase 1\nTraceback\nRuntimeError: connection closed by peer\n")
        plan.log(1).write_text(f"--- phase 1\nnoise\nerror on rank 1: {OUT_OF_MEMORY}\nmore noise\n")
        error = failure(plan, "phase 1 of 3: load", {0: 1, 1: 1})
        assert type(error) is GalpacaError
        assert error.what == "does not fit: batch.max_tokens=4096: GPU out of memory"
        assert error.why.startswith("tried to allocate")
        assert "phase 1 of 3: load, on rank 1" in error.why
        assert error.fix == OUT_OF_MEMORY.fix
        assert error.where == str(plan.log(1))

    def test_a_users_mistakes_keep_their_code_and_are_all_reported(self, plan: RehearsalPlan) -> None:
        plan.log(0).write_text(f"--- phase 1\n{PROBLEMS}")
        error = failure(plan, "phase 1", {0: 2})
        assert isinstance(error, InputError)
        for message in ("2 problems", "model.path: no such folder", "it is not there", "data.path"):
            assert message in error.what
        assert error.fix == "look again"

    def test_what_an_earlier_phase_said_does_not_count(self, plan: RehearsalPlan) -> None:
        plan.log(0).write_text("--- phase 1\nerror: of then\n--- phase 2\nTraceback of now\n")
        error = failure(plan, "phase 2", {0: 1})
        assert "of then" not in str(error)
        assert "Traceback of now" in str(error)

    def test_a_process_that_was_killed(self, plan: RehearsalPlan) -> None:
        plan.log(0).write_text("--- phase 1\n")
        assert "terminated by SIGKILL" in str(failure(plan, "phase 1", {0: -9}))

    def test_a_process_that_was_stopped(self, plan: RehearsalPlan) -> None:
        assert isinstance(failure(plan, "phase 1", {0: 143}), StoppedBySignal)
        assert isinstance(failure(plan, "phase 1", {0: 1, 1: 143}), StoppedBySignal)


@pytest.mark.parametrize("experiment", ["galpaca67b", "own_records", "galpaca1b_lora"])
def test_every_experiment_can_be_rehearsed(tmp_path: Path, experiment: str) -> None:
    """What a rehearsal changes must go with what a run asks for, such as the best checkpoint."""
    given = [f"+experiment={experiment}", f"run.root={tmp_path}", "data=local", "data.path=records.csv"]
    given += ["trainer.early_stopping_patience=2", "data.val_fraction=0.1"]
    plan = RehearsalPlan(compose(given)[0], given, 20)
    config, _ = compose(plan.command[3:])
    assert config.release.checkpoint == "last"
    assert config.trainer.early_stopping_patience is None
