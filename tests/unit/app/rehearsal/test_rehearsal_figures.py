"""What a rehearsal makes of the files that its run has written."""

import json
from pathlib import Path

import pytest

from galpaca.app.config.composition import compose
from galpaca.app.rehearsal.figures import Figures, read_figures, to_json
from galpaca.app.rehearsal.phases import PhaseResults
from galpaca.app.rehearsal.plan import RehearsalPlan
from galpaca.app.rehearsal.rehearse import short_run_rows
from galpaca.files.checksums import FileFacts
from galpaca.runs.checkpoints import Manifest, SaveSeconds
from galpaca.runs.recipe import Recipe

EVERY, STEPS = 10, 20
PARAMETERS = 6_657_359_872


def figures_of(tmp_path: Path, *overrides: str) -> Figures:
    """Of a run of 1,221 steps that is rehearsed with a step a second, and a minute of compilation at each start."""
    given = ("+experiment=galpaca67b", f"run.root={tmp_path}", *overrides)
    plan = RehearsalPlan(compose(given)[0], given, STEPS)
    folder = plan.folder
    folder.checkpoint(STEPS).mkdir(parents=True)
    first, last = (manifest(step, stall, write) for step, stall, write in ((EVERY, 2.0, 20.0), (STEPS, 30.0, 25.0)))
    (folder.checkpoint(STEPS) / "manifest.json").write_text(last.to_json())
    lines = [line(step, extra=60.0 if step in (1, EVERY + 1) else 0.0) for step in range(1, STEPS + 1)]
    lines.append({"step": STEPS, "val_loss": 1.0, "val_seconds": 15.0})
    folder.metrics.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    machine = {"device": "NVIDIA H100", "processes": 4, "nodes": 1, "memory_bytes": 80 * 2**30}
    starts = [
        {"step": 0, "machine": machine, "seconds": {"load": 20.0, "samples": 25.0, "until_first_step": 90.0}},
        {"step": EVERY, "machine": machine, "seconds": {"load": 40.0, "until_first_step": 100.0, "release": 45.0}},
    ]
    whole = {"steps": 1221, "steps_per_epoch": 407, "tokens": 1_221_000 * 10}
    folder.record.write_text(json.dumps({"starts": starts, "parameters": PARAMETERS, "whole_plan": whole}))
    return read_figures(plan, PhaseResults(EVERY + 3, first, 12.0, "an answer"))[0]


def manifest(step: int, stall: float, write: float) -> Manifest:
    files = {"rank-00000.safetensors": FileFacts(1000, "0" * 64)}
    facts = FileFacts(1, "0" * 64)
    shapes, seconds = {"all": (PARAMETERS,)}, SaveSeconds(stall, write)
    return Manifest(step, 4, shapes, Recipe.from_json({}), facts, files, "2026-11-24T00:00:00Z", seconds)


def line(step: int, extra: float) -> dict[str, float]:
    return {
        "step": step,
        "loss": 2.0,
        "tokens": 18_000,
        "step_seconds": 1.0 + extra,
        "forward_backward_seconds": 0.9 + extra,
        "mfu": 0.5 if not extra else 0.01,
        "peak_memory_bytes": step * 2**30,
    }


def test_the_figures_are_those_of_the_files(tmp_path: Path) -> None:
    figures = figures_of(tmp_path)
    assert figures.tokens_per_second == pytest.approx(18_000)
    assert figures.mfu == 0.5
    assert (figures.peak_memory_bytes, figures.device_memory_bytes) == (20 * 2**30, 80 * 2**30)
    assert (figures.start_seconds, figures.load_seconds, figures.resume_seconds) == (90, 20, 100)
    assert (figures.stall_seconds, figures.write_seconds, figures.last_checkpoint_seconds) == (2, 20, 30)
    # 2 checkpoints that stay and one under way, 12 bytes a parameter, and the model in float16.
    assert figures.disk_bytes == PARAMETERS * (3 * 12 + 2)


def test_the_whole_run_is_foretold_by_its_parts(tmp_path: Path) -> None:
    whole = figures_of(tmp_path, "data.val_fraction=0.1").run_seconds
    assert whole.start == 90
    assert whole.warm_up == pytest.approx(60)
    assert whole.steps == pytest.approx(12_210_000 / 18_000 * 0.9 + 1221 * 0.1)
    assert whole.checkpoints == 12 * 2 + 30  # every 100 steps, and the last
    assert whole.validations == 3 * 15
    assert whole.samples == 3 * 25  # those before the first step are part of the start
    assert whole.release == 45


@pytest.mark.parametrize(
    ("override", "seconds"),
    [
        ("checkpoint.every_steps=1000", 2 + 30),
        ("checkpoint.every_epoch=true", 14 * 2 + 30),  # and two ends of epochs that are no multiples of 100
        ("checkpoint.every_minutes=1", (12 + 12) * 2 + 30),
        ("checkpoint.every_steps=10", 122 * (2 + 20 - 732.6 / 123) + 30),  # each waits for the one before
    ],
)
def test_checkpoints_are_counted_as_the_run_will_take_them(tmp_path: Path, override: str, seconds: float) -> None:
    assert figures_of(tmp_path, override).run_seconds.checkpoints == pytest.approx(seconds)


def test_all_of_it_is_json_and_rows(tmp_path: Path) -> None:
    figures = figures_of(tmp_path)
    content = json.loads(json.dumps(to_json(figures)))
    assert content["run_seconds"]["total"] == pytest.approx(figures.run_seconds.total, abs=0.001)
    assert content["time"] == figures.time == "00:45:00"
    rows = dict(figures.rows())
    assert rows["peak memory"] == "20.0 GiB of 80.0 GiB, highest over ranks"
    assert rows["MFU"] == "50.0%"
    assert rows["request"] == "--time=00:45:00"


def test_a_run_that_is_no_longer_than_its_rehearsal_needs_none(tmp_path: Path) -> None:
    figures = figures_of(tmp_path)
    total = figures.run_seconds.total
    assert short_run_rows(figures, total - 1) == []
    [(_, note)] = short_run_rows(figures, total + 1)
    assert "such a run needs no rehearsal" in note
