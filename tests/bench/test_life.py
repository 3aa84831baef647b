"""``bench.life``: a tiny run lives on two processes here; what it compares is also tried on runs that differ."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Started, completed, start_ranks

from bench.life import __main__ as life
from bench.life.compare import loss_difference, other_bits, other_lines, other_plan
from bench.life.phases import Life
from bench.life.plan import STARTS, LifePlan
from bench.session import Session
from galpaca.app.config.composition import compose
from galpaca.files.checksums import FileFacts
from galpaca.runs.checkpoints import Manifest
from galpaca.runs.recipe import Recipe

LINES: list[dict[str, Any]] = [
    {"step": 1, "loss": 7.0, "lr": 1e-4, "tokens": 900, "step_seconds": 0.1, "compiled_graphs": 2},
    {"step": 2, "loss": 6.5, "lr": 2e-4, "tokens": 800, "step_seconds": 0.2, "compiled_graphs": 2},
]


# Steps take 30 ms: a signal that comes a second late, from a machine that has much to do, must still find some to make.
LINE = [sys.executable, "-m", "bench.life", "--tiny", "--steps=60", "--every=15", "--minutes=3"]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LifePlan:
    monkeypatch.setattr(sys, "argv", ["life", "--tiny", f"--folder={tmp_path / 'runs'}"])
    return life.make_plan(life.arguments())


def test_a_tiny_life_on_two_processes(tmp_path: Path, server: str) -> None:
    """All phases: killed and resumed to the same bits, stopped, on one process, on two again, loaded."""
    line = [*LINE, f"--out={tmp_path / 'out'}", f"--folder={tmp_path / 'runs'}"]
    hook: dict[str, Any] = {"hook": "faults.rehearsals:fork_children", "hook_arguments": (server,)}
    done = completed(Started(server, line, REPOSITORY, **hook))
    assert (tmp_path / "out").is_dir(), done.stdout + done.stderr
    (path,) = (tmp_path / "out").glob("*_life-tiny-fsdp-32-true-2-ranks_*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert done.returncode == 0, (done.stdout, done.stderr, found["failures"])
    assert list(found["phases"]) == [
        "straight", "killed", "resumed", "loaded", "signalled", "on fewer ranks", "on all ranks again"
    ]  # fmt: skip
    phases = found["phases"]
    assert phases["resumed"]["equal_bits"]
    assert phases["resumed"]["resumed_after_step"] == phases["killed"]["saved_step"] < phases["killed"]["after_step"]
    assert phases["signalled"]["exit_codes"] == {"0": 143}
    assert phases["on all ranks again"]["ranks"] == [2, 1, 2]
    assert phases["straight"]["checkpoints"]["15"]["stall_seconds"] >= 0
    assert phases["straight"]["host_bytes"] > 0
    assert not (tmp_path / "runs").exists(), "runs were left behind"


@pytest.mark.slow
def test_the_same_launched_once_for_each_rank(tmp_path: Path, server: str) -> None:
    """As torchrun or srun do on several nodes: the first rank leads, and alone launches the start on fewer."""
    line = [*LINE, f"--out={tmp_path / 'out'}", f"--folder={tmp_path / 'runs'}"]
    hook: dict[str, Any] = {"hook": "faults.rehearsals:fork_children", "hook_arguments": (server,)}
    ranks = [completed(one) for one in start_ranks(server, line, REPOSITORY, 2, **hook)]
    assert [one.returncode for one in ranks] == [0, 0], "\n".join(one.stdout + one.stderr for one in ranks)
    (path,) = (tmp_path / "out").glob("*.json")
    phases = json.loads(path.read_text(encoding="utf-8"))["phases"]
    assert phases["straight"]["exit_codes"] == {"0": 0, "1": 0}
    assert phases["on all ranks again"]["ranks"] == [2, 1, 2]


def manifest(**files: FileFacts) -> Manifest:
    return Manifest(4, 1, {}, Recipe({}), FileFacts(1, "m"), files, "")


def test_other_bits_are_found_in_any_ranks_file() -> None:
    one = {"rank-00000.safetensors": FileFacts(8, "a"), "trainer.json": FileFacts(3, "x")}
    same = {**one, "trainer.json": FileFacts(3, "y")}  # says when, too
    assert other_bits(manifest(**one), manifest(**same)) == []
    assert other_bits(manifest(**one), manifest(**{"rank-00000.safetensors": FileFacts(8, "b")})) == [
        "rank-00000.safetensors"
    ]
    assert other_bits(manifest(**one), manifest(**one, **{"rank-00001.safetensors": FileFacts(8, "a")})) != []


def test_other_figures_are_found_and_those_of_the_machine_are_not() -> None:
    slower = [{**LINES[0], "step_seconds": 9.0, "compiled_graphs": 3}, LINES[1]]
    assert other_lines(LINES, slower) == []
    assert other_lines(LINES, [LINES[0], {**LINES[1], "loss": 6.6}]) == ["step 2: loss 6.5 and 6.6"]
    assert other_lines(LINES, LINES[:1]) == ["2 and 1 steps"]
    assert other_plan(LINES, [LINES[0], {**LINES[1], "loss": 6.6}]) == []
    assert other_plan(LINES, [LINES[0], {**LINES[1], "tokens": 1}]) == ["step 2: tokens 800 and 1"]
    assert loss_difference(LINES, [LINES[0], {**LINES[1], "loss": 6.63}]) == pytest.approx(0.02)
    with pytest.raises(RuntimeError, match="twice"):
        loss_difference(LINES, [LINES[0], LINES[0]])


def test_starts_of_one_run_differ_in_their_ranks_alone(plan: LifePlan) -> None:
    """Else a resume would be refused, or would prove nothing."""
    two_nodes = replace(plan, devices=4, nodes=2, fewer=3, accelerator="gpu", deterministic=False)
    first, fewer = (two_nodes.command(number) for number in (4, 5))
    changed = {one: other for one, other in zip(first, fewer, strict=True) if one != other}
    assert changed == {"trainer.devices=4": "trainer.devices=3", "trainer.num_nodes=2": "trainer.num_nodes=1"}
    assert two_nodes.command(2) == two_nodes.command(3)
    assert "galpaca.train" in first
    assert "compute.deterministic=true" in plan.command(1)
    assert "compute.deterministic=false" in first
    on_gpus = two_nodes.command(1)
    config, _ = compose(on_gpus[on_gpus.index("galpaca.train") + 1 :])
    assert (config.trainer.num_ranks, config.precision.name) == (8, "32-true")
    assert {STARTS[number].run for number in (1, 2, 4)} == {"straight", "killed", "moved"}


def test_ranks_of_a_launcher_are_not_inherited_by_a_start_on_fewer(
    plan: LifePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "8", "SLURM_STEP_ID": "0", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert {"RANK", "WORLD_SIZE", "SLURM_STEP_ID"} <= plan.environment(4).keys()
    assert plan.environment(4)["MASTER_PORT"] != plan.environment(6)["MASTER_PORT"]
    assert not {"RANK", "WORLD_SIZE", "SLURM_STEP_ID", "MASTER_PORT"} & plan.environment(5).keys()


class _Ranks:
    """Ranks whose runs fail."""

    def __init__(self) -> None:
        self.killed = 0

    def start(self, number: int) -> None: ...

    def wait(self, until: Any = None) -> dict[int, int]:
        return {0: 1}

    def kill(self) -> None:
        self.killed += 1

    def printed(self) -> str:
        return "error: out of something"


def test_what_follows_a_failure_is_left_out_and_says_why(plan: LifePlan, tmp_path: Path) -> None:
    session = life.LifeSession(1.0, tmp_path, plan)
    ranks: Any = _Ranks()
    lived = Life(plan, session, lambda watch: ranks)
    session.phases = lived.phases
    lived.live()
    assert list(session.failures) == ["straight"]
    assert "exit codes by rank {0: 1}, not 0: error: out of something" in session.failures["straight"]
    assert session.left_out["killed"] == "'straight' did not come to its end"
    assert session.left_out["loaded"] == "'resumed' did not come to its end"
    assert ranks.killed == 1
    late: Session = life.LifeSession(-1.0, tmp_path, plan)
    Life(plan, late, lambda watch: ranks).live()
    assert late.left_out["straight"] == "no time left"


def test_a_machine_without_a_gpu_is_told_of_the_tiny_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(life, "_has_gpu", lambda: False)
    monkeypatch.setattr(life, "_lead", lambda *_: pytest.fail("a life of hours was started"))
    monkeypatch.setattr(sys, "argv", ["life", f"--folder={tmp_path / 'runs'}"])
    assert life.main() == 2
    assert "--tiny" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_one_rank_has_no_fewer(plan: LifePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = replace(plan, devices=1)
    session = life.LifeSession(1.0, tmp_path, alone)
    ranks: Any = _Ranks()
    Life(alone, session, lambda watch: ranks).live()
    assert session.left_out["on fewer ranks"] == "there is only one rank"
    for words in (["--every=30"], ["--nodes=2"]):
        monkeypatch.setattr(sys, "argv", ["life", *words])
        with pytest.raises(SystemExit):
            life.arguments()
