"""What ``bench.gpu`` decides by itself, without a GPU: waits that are meant, cases that do not fit, bits, its file."""

import ast
import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from bench.gpu import __main__ as gpu
from bench.gpu import bits, waits
from bench.gpu.case import Case, lack_of_memory, memory_of
from bench.gpu.cases import ADAPTERS, DEFAULTS, OPTIONS, is_tuning
from bench.gpu.figures import GpuSession
from bench.gpu.training import measure
from bench.gpu.workload import SHAPES, Shape, make_examples
from bench.session import OUT_OF_TIME, OutOfTimeError
from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.method import TuningMethod
from galpaca.model.tuning.qlora import QLora
from galpaca.training.consensus import Consensus
from galpaca.training.module import InstructionTuner

TOY = Case("toy", "toy", "32-true", examples=4, max_tokens=1_024, timed_steps=2, dropout=0.0)
CPU = torch.device("cpu")
CARD_80, CARD_141 = 80 << 30, 139 << 30


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "toy", Shape(1, 2, 64))


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Waits for an imagined GPU, with CUDA's debug mode as a variable; readings of figures wait, too."""
    mode = "default"

    def set_mode(value: str) -> None:
        nonlocal mode
        mode = value

    def wait() -> None:
        if mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    gather = Consensus.gather

    def gather_and_wait(consensus: Consensus, strategy: Strategy, figures: Tensor) -> Tensor:
        wait()
        return gather(consensus, strategy, figures)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode)
    monkeypatch.setattr(Consensus, "gather", gather_and_wait)
    return wait


# Readings after a first step of seconds, in which a GPU compiles, fall on every step; after quick ones on every fourth.
@pytest.mark.parametrize(("first_seconds", "later_seconds"), [(0.0, 0.0), (1.1, 0.0), (0.3, 0.04)])
def test_a_correct_program_passes_the_check_of_waits_whenever_its_readings_fall(
    wait: Callable[[], None], monkeypatch: pytest.MonkeyPatch, first_seconds: float, later_seconds: float
) -> None:
    """It counted steps where readings go by seconds, and failed a correct program."""
    step = InstructionTuner.training_step

    def slow(tuner: InstructionTuner, batch: Any, batch_idx: int) -> Any:
        time.sleep(first_seconds if batch.index == 0 else later_seconds)
        return step(tuner, batch, batch_idx)

    monkeypatch.setattr(InstructionTuner, "training_step", slow)
    found = waits.check_waits(TOY, make_examples(count=16), CPU)
    assert found["passed"]
    assert found["readings"] >= 2


@pytest.mark.parametrize("place", ["training_step", "on_before_optimizer_step"])
def test_a_wait_in_the_step_fails_the_check(
    wait: Callable[[], None], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """``.item()`` planted in forward and backward, or beside the clipping."""
    correct, item = getattr(InstructionTuner, place), torch.Tensor.item

    def item_that_waits(tensor: Tensor) -> Any:
        wait()
        return item(tensor)

    def planted(tuner: InstructionTuner, *args: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "item", item_that_waits)
            torch.zeros(()).item()
        return correct(tuner, *args)

    monkeypatch.setattr(InstructionTuner, place, planted)
    with pytest.raises(RuntimeError, match="synchronizing"):
        waits.check_waits(TOY, make_examples(count=16), CPU)


def test_what_a_card_cannot_hold_is_left_out_with_its_arithmetic(tmp_path: Path) -> None:
    full, lora = DEFAULTS[0], ADAPTERS[0]
    lack = lack_of_memory(full, CARD_80)
    assert lack is not None
    assert lack.startswith("needs ")
    assert " of 80 (estimate, GiB: " in lack
    assert "optimizer state 49.6" in lack
    assert lack_of_memory(full, CARD_141) is None, "6.7B in full belongs on a card of 141 GB"
    assert lack_of_memory(lora, 24 << 30) is None, "LoRA of 6.7B belongs on any"
    session = GpuSession(1.0, tmp_path, "gpu-test")
    session.run("6.7b", lambda: pytest.fail("it must not be started"), session.rows, lack=lack)
    assert session.left_out == {"6.7b": lack}
    assert not session.failures
    assert lack in session.table()


def test_every_case_fits_the_card_that_it_is_meant_for() -> None:
    too_large = [case for case in [*DEFAULTS, *ADAPTERS, *OPTIONS] if lack_of_memory(case, CARD_141)]
    assert too_large == []
    assert all(memory_of(case).total > 1 << 30 for case in DEFAULTS)
    assert [case for case in ADAPTERS if is_tuning(case, ["full"])] == []
    assert {type(case.tuning) for case in ADAPTERS if is_tuning(case, ["qlora"])} == {QLora}


def test_a_session_keeps_what_it_found_when_a_measurement_fails_or_time_runs_out(tmp_path: Path) -> None:
    def fails() -> dict[str, Any]:
        raise RuntimeError("out of something")

    session = GpuSession(1.0, tmp_path, "gpu-test")
    session.run("good", lambda: {"passed": True, "figure": 1.5}, session.checks, "good")
    session.run("bad", lambda: {"passed": False}, session.checks, "bad")
    session.run("broken", fails, session.rows)
    (path,) = tmp_path.glob("*gpu-test*.json")  # there before the end
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["invariants"]["good"]["figure"] == 1.5
    assert content["failures"].keys() == {"bad", "broken"}
    assert content["command"].startswith("python -m bench.gpu")
    late = GpuSession(-1.0, tmp_path, "gpu-late")
    late.run("late", lambda: {}, late.rows)
    assert late.left_out == {"late": OUT_OF_TIME}
    assert not late.failures


def test_what_is_cut_off_has_not_failed(tmp_path: Path) -> None:
    def takes_long() -> dict[str, Any]:
        raise OutOfTimeError("step 5 of 30")

    session = GpuSession(1.0, tmp_path, "gpu-test")
    session.run("long", takes_long, session.rows)
    assert session.left_out == {"long": "cut off: step 5 of 30"}
    assert not session.failures


def test_a_row_says_what_it_depends_on_and_how_sure_it_is() -> None:
    row = measure(TOY, make_examples(count=16), CPU)
    assert row["precision"] == "32-true"
    assert row["compute"]["activation_checkpointing"] == "none"
    assert row["packages"]["torch"] in torch.__version__
    assert row["step_seconds_deviation"] >= 0
    assert row["compile_seconds"] is not None
    assert row["other_warm_up_seconds"] == pytest.approx(row["warm_up_seconds"] - row["compile_seconds"])
    assert row["estimated_memory_bytes"] > 0
    session = GpuSession(1.0, Path(), "gpu-test")
    session.rows.append(row)
    assert "toy" in session.table()


@pytest.mark.parametrize("tuning", [Lora(rank=4), QLora(rank=4)])
def test_adapters_are_measured_beside_a_frozen_model_that_was_never_in_float32(tuning: TuningMethod) -> None:
    row = measure(
        Case("toy", "toy", "32-true", examples=4, max_tokens=1_024, timed_steps=1, tuning=tuning),
        make_examples(count=16),
        CPU,
    )
    assert row["tuning"].startswith("LoRA" if type(tuning) is Lora else "QLoRA")
    assert all(loss is not None and 0 < loss < 20 for loss in row["losses"])


def test_two_runs_of_one_seed_are_compared_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are equal on a CPU; a step that depends on anything else is found, and fails where it must not happen."""
    examples = make_examples(count=16)
    found = bits.all_cases((TOY,), examples, CPU)
    assert found["passed"]
    assert found["32-true, as it is"]["equal"]
    assert not torch.are_deterministic_algorithms_enabled()
    step, count = InstructionTuner.training_step, 0

    def drifting(tuner: InstructionTuner, batch: Any, batch_idx: int) -> Any:
        nonlocal count
        count += 1
        with torch.no_grad():
            next(tuner.parameters()).view(-1)[0] += 1e-3 * count
        return step(tuner, batch, batch_idx)

    monkeypatch.setattr(InstructionTuner, "training_step", drifting)
    strict = bits.twice(TOY, examples, CPU, deterministic=True)
    assert not strict["passed"]
    assert strict["unequal_weights"] > 0
    assert strict["furthest"] > 0


def test_a_card_of_80_gb_is_given_what_it_can_hold_in_the_order_of_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure_nothing(case: Case, *_: Any, **__: Any) -> dict[str, Any]:
        measured.append(f"{case.shape} {case.name}")
        row = {"name": case.name, "shape": case.shape, "precision": case.precision, "tokens_per_second": 3.0}
        return {**row, "mfu": None, "peak_memory_bytes": 1, "step_seconds": 1.0, "step_seconds_deviation": 0.0}

    def trainer(*_: Any) -> dict[str, Any]:
        return {**measure_nothing(Case("transformers.Trainer", "1.3b", "bf16-mixed")), "tokens_per_second": 2.0}

    monkeypatch.setattr(gpu, "measure", measure_nothing)
    monkeypatch.setattr(gpu, "measure_trainer", trainer)
    monkeypatch.setattr(gpu, "path_figures", lambda *_: {"tokens": 1})
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, CARD_80))
    session = GpuSession(1.0, tmp_path, "gpu-test")
    gpu._cases(session, make_examples(count=4), CPU, ["6.7b", "1.3b"], ["full", "lora"])
    assert measured[0] == "1.3b 1.3b"
    assert "6.7b LoRA" in measured
    assert "6.7b QLoRA" not in measured
    assert session.paths.keys() == {"6.7b", "1.3b"}
    assert session.left_out["6.7b 6.7b selective bf16-mixed"].startswith("needs 114 GiB of 80")
    assert session.figures()["ratio_to_trainer"] == 1.5
    assert "1.50x" in session.table()


def test_bits_are_compared_in_a_process_whose_environment_cublas_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        given.update(how)
        if given.get("writes"):
            Path(command[-1]).write_text('{"passed": true}', encoding="utf-8")
        return subprocess.CompletedProcess(command, 1, "", "no kernel image")

    monkeypatch.setattr(bits, "subprocess", SimpleNamespace(run=run))
    with pytest.raises(RuntimeError, match="exit code 1: no kernel image"):
        bits.in_a_process()
    assert given["env"]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    given["writes"] = True
    assert bits.in_a_process() == {"passed": True}


def test_it_needs_nothing_that_a_bare_machine_with_torch_lacks() -> None:
    """Hydra and what it needs are absent there; only ``app`` knows them (``tests/floors``)."""
    imported: set[str] = set()
    for path in [*(REPOSITORY / "bench" / "gpu").glob("*.py"), REPOSITORY / "bench" / "session.py"]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert "torch" in imported
    assert not [name for name in imported if re.match(r"(hydra|omegaconf|antlr4|galpaca\.app|galpaca\.cli)\b", name)]
