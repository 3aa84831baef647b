"""The figures of README.md and bench/README.md, from the newest results of each benchmark in bench/results.

A page marks where they go by ``<!-- measured: NAME -->`` and ``<!-- end -->``; each name is one of ``BLOCKS``.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import marks

RESULTS = Path(__file__).resolve().parents[1] / "bench" / "results"
# What the pages cite.
HARDWARE = "cpu-2-cores"
CITED = ("peers", "startup", "packing", "checkpoints", "memory", "endurance", "preemption", "old_runs")
_PACKING_ROWS = ((128, 4, 4096), (128, 8, 4096), (1024, 16, 3072), (1024, 64, 4096), (128, 64, 4096))
_LINE = 120


def filled(text: str) -> str:
    """A page with its figures.

    Raises:
        KeyError: a mark without a function, or a result without a figure.
    """
    return marks.filled(text, "measured", lambda name: BLOCKS[name]())


@cache
def result(benchmark: str) -> dict[str, Any]:
    """The newest result of a benchmark."""
    path = max(RESULTS.glob(f"*_{benchmark}_{HARDWARE}.json"))
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _surroundings(benchmarks: Sequence[str] = CITED) -> str:
    results = [result(benchmark) for benchmark in benchmarks]
    dates = sorted({one["date"][:10] for one in results})
    torch = sorted({one["packages"]["torch"].partition("+")[0] for one in results})
    processors = sorted({re.sub(r"\(R\)| Processor", "", one["processor"]) for one in results})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"2 CPU cores ({', '.join(processors)}), torch {', '.join(torch)}, {when}"


def _of_a_user() -> str:
    """README's rows: what matters to those who use it."""
    peers, startup = result("peers")["ratio"], result("startup")["seconds"]
    kills, jobs = result("endurance"), result("preemption")
    return "\n".join(
        [
            f"On {_surroundings(('smollm', 'peers', 'endurance', 'preemption', 'startup', 'memory'))}:\n",
            *_table(
                ("what", "figure", "command"),
                _real_model(),
                (
                    "throughput against `transformers.Trainer`; against TRL's `SFTTrainer`; small model",
                    f"{peers['trainer']:.2f} x; {peers['trl']:.2f} x",
                    _command("peers"),
                ),
                (
                    "runs killed at checkpoint writes and at random moments that ended in the same bits",
                    _all_equal(kills, "kills"),
                    _command("endurance"),
                ),
                (
                    "jobs warned, preempted or stopped under SLURM that ended in the same bits",
                    _all_equal(jobs, "disturbed"),
                    _command("preemption"),
                ),
                (
                    "52,002 records encoded; found in the cache",
                    f"{startup['encode_52002']:.1f} s; {startup['warm_52002']:.1f} s",
                    _command("startup"),
                ),
                (
                    "host memory of loading a 1.3b-shaped model under FSDP, over a rank's share; `from_pretrained`",
                    f"{_memory('fsdp'):.2f} GiB; {_memory('from_pretrained'):.2f} GiB",
                    _command("memory"),
                ),
            ),
        ]
    )


def _real_model() -> tuple[str, str, str]:
    """Losses of a pretrained model on records that it was not tuned on, by one full tuning."""
    found = result("smollm")
    records, (overall, *_) = found["records"], found["losses"]["records"]["loss"]
    before, after = overall["models"][0]["nats_per_token"], overall["models"][2]["nats_per_token"]
    change = after["difference"]
    page = max(RESULTS.glob(f"*_smollm_{HARDWARE}.md")).name
    return (
        f"SmolLM2-135M-Instruct (dequantized from 4 bits), tuned on {records['train']} real Alpaca records: nats per "
        f"target token of {records['test']} others before and after, and the difference "
        f"([page](bench/results/{page}))",
        f"{before['value']:.3f}, {after['value']:.3f}; "
        f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]",
        "`make smollm`",
    )


def _throughput() -> str:
    peers = result("peers")
    model, ratio = peers["model"], peers["ratio"]
    return "\n".join(
        [
            _paragraph(
                f"{_command('peers')}: the same model ({model['num_layers']} layers, hidden size "
                f"{model['hidden_size']}, the head {100 * peers['head_share']:.0f} % of the matrix products), the same "
                f"{peers['records']} Alpaca records ({peers['mean_tokens']:.0f} tokens on average) and the same "
                f"recipe, {peers['examples_per_step']} examples per step, in alternating runs; medians of 3 repeats. A "
                "ratio above 1 means that galpaca is faster."
            ),
            "",
            *_table(
                ("galpaca against", "ratio"),
                ("`transformers.Trainer`, 4 examples padded to the longest", f"{ratio['trainer']:.2f} x"),
                ("the same, padded to 512", f"{ratio['trainer_padded']:.2f} x"),
                ("TRL's `SFTTrainer`", f"{ratio['trl']:.2f} x"),
                ("the same with packing, where examples attend to each other", f"{ratio['trl_packed']:.2f} x"),
            ),
            "",
            f"Losses of the first three equal galpaca's within {peers['largest_loss_difference']:.0e}, relative.",
        ]
    )


def _startup() -> str:
    seconds = result("startup")["seconds"]
    rows = {
        "`python train.py --help`": f"{seconds['train_help']:.1f}",
        "`galpaca --help`": f"{seconds['galpaca_help']:.2f}",
        "from the command to the demo's first step": f"{seconds['demo_first_step']:.1f}",
        "52,002 records encoded": f"{seconds['encode_52002']:.1f}",
        "the same, found in the cache": f"{seconds['warm_52002']:.1f}",
        "3 epochs of them planned": f"{seconds['plan_52002_x_3']:.1f}",
    }
    return "\n".join([f"{_command('startup')}:\n", *_table(("what", "seconds"), *rows.items())])


def _packing() -> str:
    rows = []
    for examples, ranks, max_tokens in _PACKING_ROWS:
        wanted = {"examples": examples, "ranks": ranks, "max_tokens": max_tokens}
        (row,) = (row for row in result("packing")["rows"] if wanted.items() <= row.items())
        imbalance, padding = 100 * row["mean_imbalance"], 100 * (1 - row["non_padding_fraction"])
        rows.append((f"{examples:,}", str(ranks), f"{max_tokens:,}", f"{imbalance:.2f}", f"{padding:.2f}"))
    columns = ("examples per step", "ranks", "budget, tokens", "imbalance, %", "padding, %")
    return "\n".join(
        [
            _paragraph(
                f"{_command('packing')}, with lengths like Alpaca's. Imbalance is how much longer the fullest rank "
                "takes than the mean, in tokens, so how long ranks wait for each other; padding is what compiled "
                "layers need to round sizes."
            ),
            "",
            *_table(columns, *rows),
        ]
    )


def _checkpoints() -> str:
    found = result("checkpoints")
    back, front = found["asynchronous"], found["synchronous"]
    gib = max(row["bytes"] for row in found["rows"]) / 2**30

    def row(what: str, key: str, decimals: int, *, waits: bool = True) -> tuple[str, str, str]:
        return what, f"{back[key]:.{decimals}f} s", f"{front[key]:.{decimals}f} s" if waits else ""

    return "\n".join(
        [
            _paragraph(f"{_command('checkpoints')}: a checkpoint of {gib:.2f} GiB, on two cores that both train."),
            "",
            *_table(
                ("", "in the background", "training waits"),
                row("training stands still per checkpoint", "stall_seconds", 2),
                row("until it is written", "write_seconds", 2),
                row("a step while it is being written", "step_seconds_beside", 2, waits=False),
                row("a step otherwise", "step_seconds_alone", 2),
                row("the whole run", "run_seconds", 1),
            ),
        ]
    )


def _memory_table() -> str:
    return "\n".join(
        [
            _paragraph(
                f"{_command('memory')}, a 1.3b-shaped model, each process's own memory at its peak beside its share "
                "of the weights:"
            ),
            "",
            *_table(
                ("", "GiB"),
                ("loading under FSDP on 2 ranks, each", f"{_memory('fsdp'):.2f}"),
                ("the same through `from_pretrained`", f"{_memory('from_pretrained'):.2f}"),
                ("exporting to float16, with all checks", f"{_memory('galpaca export'):.2f}"),
            ),
        ]
    )


def _endurance() -> str:
    kills, jobs, old = result("endurance"), result("preemption"), result("old_runs")
    starting = sum(row.get("while") == "starting" for row in jobs["rows"])
    return "\n".join(
        _table(
            ("command", "what", "ended in the same bits", "minutes"),
            (
                _command("endurance"),
                "runs killed at checkpoint writes and at random moments; single, DDP, FSDP",
                _all_equal(kills, "kills"),
                f"{kills['minutes']:.1f}",
            ),
            (
                _command("preemption"),
                f"disturbances of jobs under SLURM, {starting} of them while a job starts; no step lost",
                _all_equal(jobs, "disturbed"),
                f"{jobs['minutes']:.0f}",
            ),
            (
                _command("old_runs"),
                f"runs that commit {old['started_by']} started, killed half-way, resumed by the present code; "
                "single, DDP, FSDP",
                f"{len(old['rows']) - len(old['failed'])} of {len(old['rows'])}",
                f"{old['minutes']:.0f}",
            ),
        )
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "user": _of_a_user,
    "surroundings": lambda: _paragraph(f"All figures below are from {_surroundings()}."),
    "throughput": _throughput,
    "startup": _startup,
    "packing": _packing,
    "checkpoints": _checkpoints,
    "memory": _memory_table,
    "endurance": _endurance,
}


def _command(benchmark: str) -> str:
    return f"`{result(benchmark)['command']}`"


def _all_equal(found: dict[str, Any], count: str) -> str:
    return f"{found[count] - len(found['failed'])} of {found[count]}"


def _memory(what: str) -> float:
    rows = result("memory")["rows"]
    return max(row["counted_gib"] for row in rows if row["what"].startswith(what))


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _LINE, break_long_words=False, break_on_hyphens=False)


def _table(head: Sequence[str], *rows: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
