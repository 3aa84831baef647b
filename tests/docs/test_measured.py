"""Figures that the pages cite from bench/results are those of the files, rounded as they are written."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import REPOSITORY

RESULTS = REPOSITORY / "bench" / "results"
Content = Mapping[str, Any]


class Figure(NamedTuple):
    """One cited figure: a page, a pattern whose group is the figure, a benchmark, and where its result has it."""

    page: str
    pattern: str
    benchmark: str
    of: Callable[[Content], float]


def packing(examples: int, ranks: int, max_tokens: int, key: str) -> Callable[[Content], float]:
    def of(content: Content) -> float:
        wanted = {"examples": examples, "ranks": ranks, "max_tokens": max_tokens}
        (row,) = (row for row in content["rows"] if wanted.items() <= row.items())
        return 100 * (1 - row["non_padding_fraction"]) if key == "padding" else 100 * row[key]

    return of


def memory(what: str) -> Callable[[Content], float]:
    return lambda content: max(row["counted_gib"] for row in content["rows"] if row["what"].startswith(what))


def at(*keys: str) -> Callable[[Content], float]:
    def of(content: Content) -> float:
        value: Any = content
        for key in keys:
            value = value[key]
        return float(value)

    return of


README, BENCH, PLAN_NOTE = "README.md", "bench/README.md", "docs/design/0001-one-batch-is-one-step.md"
BACK, FRONT = "asynchronous", "synchronous"
PACKING_ROWS = [(128, 4, 4096), (128, 8, 4096), (1024, 16, 3072), (1024, 64, 4096), (128, 64, 4096)]

FIGURES = [
    Figure(README, r"\| (\d+) of \1 in the same bits \(`python -m bench\.endurance", "endurance", at("kills")),
    Figure(README, r"\| (\d+) of \1 in the same bits \(`python -m bench\.preemption", "preemption", at("disturbed")),
    Figure(README, r"\| ([\d.]+) x; [\d.]+ x; [\d.]+ x, small", "peers", at("ratio", "trainer")),
    Figure(README, r"\| [\d.]+ x; ([\d.]+) x; [\d.]+ x, small", "peers", at("ratio", "trl")),
    Figure(README, r"\| [\d.]+ x; [\d.]+ x; ([\d.]+) x, small", "peers", at("ratio", "trl_packed")),
    Figure(README, r"stands still for ([\d.]+) s", "checkpoints", at(BACK, "stall_seconds")),
    Figure(README, r"stands still for [\d.]+ s, against ([\d.]+) s", "checkpoints", at(FRONT, "stall_seconds")),
    Figure(README, r"steps meanwhile take ([\d.]+) s", "checkpoints", at(BACK, "step_seconds_beside")),
    Figure(README, r"take [\d.]+ s instead of ([\d.]+) s", "checkpoints", at(BACK, "step_seconds_alone")),
    Figure(README, r"whole run ([\d.]+) s", "checkpoints", at(BACK, "run_seconds")),
    Figure(README, r"whole run [\d.]+ s, against ([\d.]+) s", "checkpoints", at(FRONT, "run_seconds")),
    Figure(README, r"([\d.]+) % with 4 ranks", "packing", packing(128, 4, 4096, "mean_imbalance")),
    Figure(README, r"([\d.]+) % with 8 \(", "packing", packing(128, 8, 4096, "mean_imbalance")),
    Figure(README, r"\| ([\d.]+) GiB \(`from_pretrained`", "memory", memory("fsdp")),
    Figure(README, r"`from_pretrained`: ([\d.]+) GiB", "memory", memory("from_pretrained")),
    Figure(PLAN_NOTE, r"([\d.]+) % of the time with 4 ranks", "packing", packing(128, 4, 4096, "mean_imbalance")),
    Figure(PLAN_NOTE, r"([\d.]+) % with 8 \(", "packing", packing(128, 8, 4096, "mean_imbalance")),
    Figure(BENCH, r"the head (\d+) % of", "peers", lambda content: 100 * content["head_share"]),
    Figure(BENCH, r"\((\d+) tokens on average\)", "peers", at("mean_tokens")),
    Figure(BENCH, r"padded to the longest \| ([\d.]+) x", "peers", at("ratio", "trainer")),
    Figure(BENCH, r"padded to 512 \| ([\d.]+) x", "peers", at("ratio", "trainer_padded")),
    Figure(BENCH, r"`SFTTrainer` \| ([\d.]+) x", "peers", at("ratio", "trl")),
    Figure(BENCH, r"attend to each other \| ([\d.]+) x", "peers", at("ratio", "trl_packed")),
    Figure(BENCH, r"`python train.py --help` \| ([\d.]+)", "startup", at("seconds", "train_help")),
    Figure(BENCH, r"`galpaca --help` \| ([\d.]+)", "startup", at("seconds", "galpaca_help")),
    Figure(BENCH, r"demo's first step \| ([\d.]+)", "startup", at("seconds", "demo_first_step")),
    Figure(BENCH, r"52,002 records encoded \| ([\d.]+)", "startup", at("seconds", "encode_52002")),
    Figure(BENCH, r"found in the cache \| ([\d.]+)", "startup", at("seconds", "warm_52002")),
    Figure(BENCH, r"3 epochs of them planned \| ([\d.]+)", "startup", at("seconds", "plan_52002_x_3")),
    *(
        Figure(BENCH, rf"\| {e:,} \| {r} \| {t:,} \| ([\d.]+) \|", "packing", packing(e, r, t, "mean_imbalance"))
        for e, r, t in PACKING_ROWS
    ),
    *(
        Figure(BENCH, rf"\| {e:,} \| {r} \| {t:,} \| [\d.]+ \| ([\d.]+) \|", "packing", packing(e, r, t, "padding"))
        for e, r, t in PACKING_ROWS
    ),
    Figure(BENCH, r"per checkpoint \| ([\d.]+) s", "checkpoints", at(BACK, "stall_seconds")),
    Figure(BENCH, r"per checkpoint \| [\d.]+ s \| ([\d.]+) s", "checkpoints", at(FRONT, "stall_seconds")),
    Figure(BENCH, r"it is written \| ([\d.]+) s", "checkpoints", at(BACK, "write_seconds")),
    Figure(BENCH, r"it is written \| [\d.]+ s \| ([\d.]+) s", "checkpoints", at(FRONT, "write_seconds")),
    Figure(BENCH, r"being written \| ([\d.]+) s", "checkpoints", at(BACK, "step_seconds_beside")),
    Figure(BENCH, r"a step otherwise \| ([\d.]+) s", "checkpoints", at(BACK, "step_seconds_alone")),
    Figure(BENCH, r"a step otherwise \| [\d.]+ s \| ([\d.]+) s", "checkpoints", at(FRONT, "step_seconds_alone")),
    Figure(BENCH, r"the whole run \| ([\d.]+) s", "checkpoints", at(BACK, "run_seconds")),
    Figure(BENCH, r"the whole run \| [\d.]+ s \| ([\d.]+) s", "checkpoints", at(FRONT, "run_seconds")),
    Figure(BENCH, r"2 ranks, each \| ([\d.]+)", "memory", memory("fsdp")),
    Figure(BENCH, r"through `from_pretrained` \| ([\d.]+)", "memory", memory("from_pretrained")),
    Figure(BENCH, r"exporting to float16, with all checks \| ([\d.]+)", "memory", memory("galpaca export")),
    Figure(BENCH, r"\| (\d+) runs killed", "endurance", at("kills")),
    Figure(BENCH, r"DDP, FSDP; ([\d.]+) minutes", "endurance", at("minutes")),
    Figure(BENCH, r"\| (\d+) disturbances", "preemption", at("disturbed")),
    Figure(BENCH, r"job starts; (\d+) minutes", "preemption", at("minutes")),
]


def result(benchmark: str) -> Content:
    """The newest result of a benchmark on 2 cores, which is what the pages cite."""
    path = max(RESULTS.glob(f"*_{benchmark}_cpu-2-cores.json"))
    return json.loads(path.read_text(encoding="utf-8"))


def text(page: str | Path) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.page}-{figure.pattern}")
def test_a_cited_figure_is_the_results(figure: Figure) -> None:
    found = re.findall(figure.pattern, text(figure.page))
    assert len(found) == 1, f"{figure.page} should have {figure.pattern!r} once, and has it {len(found)} times"
    decimals = len(found[0].partition(".")[2])
    assert found[0] == f"{figure.of(result(figure.benchmark)):.{decimals}f}"


@pytest.mark.parametrize("page", [README, BENCH])
def test_a_cited_command_is_the_one_that_was_run(page: str) -> None:
    """`python -m bench.NAME` with the options that gave the figures beside it."""
    cited = re.findall(r"`(python -m bench\.(\w+)[^`]*)`", text(page))
    assert len(cited) >= 6
    for command, benchmark in cited:
        if benchmark != "gpu":  # not run yet
            assert command == result(benchmark)["command"]


@pytest.mark.parametrize("benchmark", ["endurance", "preemption", "old_runs"])
def test_what_is_called_equal_was(benchmark: str) -> None:
    content = result(benchmark)
    assert content["failed"] == []
    assert {row["result"] for row in content["rows"]} == {"equal"}
