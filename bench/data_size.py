"""``python -m bench.data_size``: seconds and memory of encoding, a warm start and planning, at few and many records.

Each measurement is a process of its own, whose peak of memory is the figure. Sizes take turns and the first comes last
again, so that a machine that slows down meanwhile slows all of them; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.results import REPOSITORY, RESULTS, save

SIZES = (52_002, 1_000_000)
# A record may take as long among many as among few, but for what differs from one time to the next.
TOLERANCE = 1.05


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.data_size", description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=SIZES, metavar="N", help="sizes (%(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="of each size, in turn (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(_measured(given.measure)))
        return 0
    return measure_sizes(given.records, given.repeats, given.out)


def measure_sizes(sizes: Sequence[int], repeats: int, out: Path) -> int:
    """Measures and saves; the exit code says whether a record takes as long among many as among few."""
    measured: dict[int, list[dict[str, Any]]] = {count: [] for count in sizes}
    for count in [*sizes] * repeats + [sizes[0]]:
        measured[count].append(one := _in_a_process(count))
        print(
            f"{count:>9,} records: encoded in {one['encode_seconds']:.1f} s "
            f"({one['encode_seconds_per_record'] * 1e6:.0f} µs each), warm {one['warm_seconds']:.2f} s, "
            f"planned 3 epochs in {one['plan_seconds']:.1f} s; peak {one['encode_peak_bytes'] / 2**30:.2f} GiB, "
            f"warm {one['warm_peak_bytes'] / 2**30:.2f} GiB",
            flush=True,
        )
    each = {count: median(one["encode_seconds_per_record"] for one in ones) for count, ones in measured.items()}
    ratios = {count: seconds / each[sizes[0]] for count, seconds in each.items()}
    for count, ratio in ratios.items():
        print(f"{count:>9,} records: {ratio:.3f} of the time per record of {sizes[0]:,}")
    print(f"written: {save('data-size', {'figures': measured, 'ratio_per_record': ratios}, out)}")
    return 0 if all(ratio <= TOLERANCE for ratio in ratios.values()) else 1


def _in_a_process(count: int) -> dict[str, Any]:
    """Encodes in one process, and finds it encoded in another."""
    from bench.startup import write_records

    with tempfile.TemporaryDirectory(prefix="galpaca-data-") as name:
        folder = Path(name)
        records, tokenizer = write_records(folder, count)
        (folder / "given.json").write_text(json.dumps([str(records), tokenizer]), encoding="utf-8")
        cold, warm = (_run(folder) for _ in range(2))
    return {
        "records": count,
        "encode_seconds": cold["prepare_seconds"],
        "encode_seconds_per_record": cold["prepare_seconds"] / count,
        "encode_peak_bytes": cold["peak_bytes"],
        "warm_seconds": warm["prepare_seconds"],
        "warm_peak_bytes": warm["peak_bytes"],
        "plan_seconds": warm["plan_seconds"],
        "mean_tokens": warm["mean_tokens"],
    }


def _run(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.data_size", "--measure", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measured(folder: Path) -> dict[str, Any]:
    """What a run does before its model is made, and the plan of three epochs."""
    from galpaca.app.console import make_console
    from galpaca.app.train.data import find_data, prepare_data
    from galpaca.data.plan import StepPlan
    from galpaca.data.spec import DataSpec
    from galpaca.data.tokenizer import load_tokenizer

    records, tokenizer = json.loads((folder / "given.json").read_text(encoding="utf-8"))
    load_tokenizer(tokenizer)  # imports take seconds, whatever the size
    spec = DataSpec(path=records, cache_dir=str(folder / "cache"))
    begin = time.perf_counter()
    data = prepare_data(spec, find_data(spec, folder), tokenizer, make_console(quiet=True))
    prepared = time.perf_counter()
    examples = data.split.examples
    plan = StepPlan(examples.lengths, examples.num_targets, examples=128, max_tokens=4_096, num_ranks=4, seed=0)
    for index in range(3 * plan.steps_per_epoch):
        plan.step(index)
    return {
        "prepare_seconds": prepared - begin,
        "plan_seconds": time.perf_counter() - prepared,
        "peak_bytes": _peak_bytes(),
        "mean_tokens": float(examples.lengths.mean()),
    }


def _peak_bytes() -> int:
    """Of this process since it was started; ``ru_maxrss`` has that of the one that started it as well."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [kibibytes] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kibibytes * 1024


if __name__ == "__main__":
    sys.exit(main())
