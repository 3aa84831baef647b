"""Under ``wandb agent``: the run is the one that the agent has named, or it is refused."""

import json
from pathlib import Path

from conftest import Train

AGENT = {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "sw1", "WANDB_RUN_ID": "agent77"}


def test_a_new_run_takes_over_the_id_that_the_agent_has_chosen(train: Train, tmp_path: Path) -> None:
    """W&B took no other id within a sweep, and the run's record had one that nobody ever saw there."""
    done = train("logger=wandb", env=AGENT, forked=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "runs/test/run.json").read_text(encoding="utf-8"))
    assert record["id"] == "agent77"
    assert record["starts"][0]["setup"]["sweep"] == "sw1, as run agent77"
    assert "sw1, as run agent77" in done.stdout
    again = train("logger=wandb", env={**AGENT, "WANDB_RUN_ID": "agent78"}, forked=True)
    assert again.returncode == 2
    assert "the run has the id agent77, not agent78" in again.stderr
    assert "unset WANDB_RUN_ID WANDB_SWEEP_ID" in again.stderr


def test_an_id_that_is_none_is_refused_before_anything_is_written(train: Train, tmp_path: Path) -> None:
    """W&B refused it with a stack trace, after the run had been recorded under it."""
    done = train("logger=wandb", env={**AGENT, "WANDB_RUN_ID": "../x y"}, forked=True)
    assert done.returncode == 2
    assert "'../x y' is no id of a run" in done.stderr
    assert not (tmp_path / "runs/test").exists()


def test_other_loggers_leave_the_agents_id_alone(train: Train, tmp_path: Path) -> None:
    assert train(env=AGENT, forked=True).returncode == 0
    assert json.loads((tmp_path / "runs/test/run.json").read_text(encoding="utf-8"))["id"] != "agent77"
