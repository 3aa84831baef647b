"""``python -m bench.startup``: seconds from a command to its answer, and of encoding and planning 52,002 records."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from bench.data_size import measure_sizes
from bench.results import REPOSITORY, RESULTS, save

_SHARED = REPOSITORY.parent / "shared" / "data"
_DEMO = REPOSITORY / "src" / "galpaca" / "demo"
# Figure to its bar, in seconds on 2 cores.
BARS = {
    "train_help": 1.5,
    "galpaca_help": 1.5,
    "demo_first_step": 14.0,
    "encode_52002": 20.0,
    "warm_52002": 1.0,
    "plan_52002_x_3": 1.0,
}


def main() -> int:
    given = _arguments()
    if given.only_data:
        return measure_sizes(given.only_data, given.repeats, given.out)
    with tempfile.TemporaryDirectory(prefix="galpaca-startup-") as name:
        folder = Path(name)
        figures = {
            "train_help": _median(lambda: _seconds([sys.executable, "train.py", "--help"]), given.repeats),
            "galpaca_help": _median(lambda: _seconds([sys.executable, "-m", "galpaca", "--help"]), given.repeats),
        }
        _first_step_seconds(folder / "cold")  # fills the cache of encoded data, and the file system's
        figures["demo_first_step"] = _median(lambda: _first_step_seconds(folder / "cold"), given.repeats)
        figures |= _data_figures(folder, given.records)
    for figure, seconds in figures.items():
        print(f"{figure:<18}{seconds:>8.2f} s   bar {BARS[figure]:>5.1f} s   {_verdict(figure, seconds)}")
    print(
        f"written: {save('startup', {'seconds': figures, 'bars_seconds': BARS, 'records': given.records}, given.out)}"
    )
    return 0 if all(seconds <= BARS[figure] for figure, seconds in figures.items()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="of what is short; medians are shown (%(default)s)")
    parser.add_argument("--records", type=int, default=52_002, help="to encode and plan (%(default)s)")
    sizes = "only encode and plan so many records, with memory: --only-data 52002 1000000"
    parser.add_argument("--only-data", type=int, nargs="+", metavar="N", help=sizes)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    return parser.parse_args()


def _verdict(figure: str, seconds: float) -> str:
    return "ok" if seconds <= BARS[figure] else "TOO SLOW"


def _median(measure: Callable[[], float], repeats: int) -> float:
    return median(measure() for _ in range(repeats))


def _seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def _first_step_seconds(root: Path) -> float:
    """From the command to the demo's first line of figures; its encoded data stays for the next time."""
    metrics = root / "demo" / "metrics.jsonl"
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "train.py", "+experiment=demo", f"run.root={root}"], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    try:
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                raise RuntimeError(f"the demo ended with {process.returncode} before its first step")
            time.sleep(0.01)
        return time.perf_counter() - begin
    finally:
        process.kill()
        process.wait()
        for path in sorted((root / "demo").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def _data_figures(folder: Path, count: int) -> dict[str, float]:
    """By ``galpaca inspect``'s own code: what a run does before its model is made."""
    from galpaca.app.console import make_console
    from galpaca.app.train.data import find_data, prepare_data
    from galpaca.data.plan import StepPlan
    from galpaca.data.spec import DataSpec

    records, tokenizer = write_records(folder, count)
    spec = DataSpec(path=str(records), cache_dir=str(folder / "cache"))
    console = make_console(quiet=True)
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        data = prepare_data(spec, find_data(spec, folder), tokenizer, console)
        seconds.append(time.perf_counter() - begin)
    examples = data.split.examples
    print(f"{len(examples):,} examples of {examples.lengths.mean():.0f} tokens on average")
    begin = time.perf_counter()
    plan = StepPlan(examples.lengths, examples.num_targets, examples=128, max_tokens=4_096, num_ranks=4, seed=0)
    for index in range(3 * plan.steps_per_epoch):
        plan.step(index)
    return {
        "encode_52002": seconds[0],
        "warm_52002": seconds[1],
        "plan_52002_x_3": time.perf_counter() - begin,
    }


def write_records(folder: Path, count: int) -> tuple[Path, str]:
    """Records of Alpaca's mean length, cut from real ones where those are at hand; no two alike."""
    source = _SHARED / "alpaca_999.json"
    tokenizer = _SHARED / "galactica_tokenizer"
    real = json.loads((source if source.exists() else _DEMO / "records.json").read_text(encoding="utf-8"))
    words = " ".join(record["output"] for record in real).split(" ")
    generator = np.random.default_rng(0)
    # 65 tokens of answer on average are about 49 of these words.
    lengths = np.clip(generator.lognormal(np.log(38), 0.75, count).astype(int), 1, 300)
    starts = generator.integers(0, len(words) - 300, count)
    records = [
        {
            "instruction": f"{real[i % len(real)]['instruction'][:80]} ({i:07})",
            "input": "",
            "output": " ".join(words[start : start + length]),
        }
        for i, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True))
    ]
    path = folder / "records.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path, str(tokenizer if tokenizer.exists() else _DEMO / "tokenizer")


if __name__ == "__main__":
    sys.exit(main())
