"""``python -m bench.checkpoints``: how long training stands still for a checkpoint, written beside it or before it.

Both runs are ``train.py`` as a user starts it, on the demo's records; the figures are those that every checkpoint's
manifest keeps. A step waits for the copy to host memory, and for the writing of the one before where that is not over.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from bench.results import REPOSITORY, RESULTS, save

_WAYS = {"asynchronous": "true", "synchronous": "false"}


def main() -> int:
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="galpaca-checkpoints-", dir=given.on) as name:
        rows = [_measure(Path(name), way, given) for _ in range(given.repeats) for way in _WAYS]
    figures = {way: _together([row for row in rows if row["way"] == way]) for way in _WAYS}
    ratio = figures["synchronous"]["stall_seconds"] / figures["asynchronous"]["stall_seconds"]
    print(f"{'':<14}{'stall':>10}{'writing':>10}{'step beside':>13}{'step alone':>12}{'whole run':>11}")
    for way, row in figures.items():
        print(
            f"{way:<14}{row['stall_seconds']:>8.2f} s{row['write_seconds']:>8.2f} s"
            f"{row['step_seconds_beside']:>11.2f} s{row['step_seconds_alone']:>10.2f} s{row['run_seconds']:>9.1f} s"
        )
    print(f"{rows[0]['bytes'] / 2**30:.2f} GiB a checkpoint; a save stalls {ratio:.1f} x shorter beside the training")
    print(f"written: {save('checkpoints', {**figures, 'ratio': ratio, 'rows': rows}, given.out)}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.checkpoints", description=__doc__)
    parser.add_argument("--layers", type=int, default=6, help="of hidden size 768 (%(default)s)")
    parser.add_argument("--every", type=int, default=3, help="steps between two checkpoints (%(default)s)")
    parser.add_argument("--saves", type=int, default=4, help="checkpoints a run, beside the last (%(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="alternating; medians are shown (%(default)s)")
    parser.add_argument("--on", type=Path, default=None, help="folder on the disk to measure (the temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    return parser.parse_args()


def _measure(folder: Path, way: str, given: argparse.Namespace) -> dict[str, Any]:
    steps = given.every * given.saves + 1
    subprocess.run(
        [
            *(sys.executable, "train.py", "+experiment=demo", f"run.root={folder}", f"run.name={way}"),
            *("model.hidden_size=768", "model.num_heads=12", "model.ffn_size=3072", f"model.num_layers={given.layers}"),
            *(f"trainer.max_steps={steps}", "batch.examples=8", f"checkpoint.every_steps={given.every}"),
            *(f"checkpoint.keep_last={given.saves + 1}", f"checkpoint.asynchronous={_WAYS[way]}"),
        ],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    run = folder / way
    manifests = [json.loads(path.read_text()) for path in sorted(run.glob("checkpoints/step-*/manifest.json"))]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    beside = {step for manifest in manifests for step in (manifest["step"] + 1,)}
    row = {
        "way": way,
        # Without the first, whose memory is taken then, and the last, for which every run waits.
        "stall_seconds": [manifest["seconds"]["stall"] for manifest in manifests[1:-1]],
        "first_stall_seconds": manifests[0]["seconds"]["stall"],
        "write_seconds": [manifest["seconds"]["write"] for manifest in manifests[1:-1]],
        "step_seconds_beside": median(line["step_seconds"] for line in lines if line["step"] in beside),
        "step_seconds_alone": median(line["step_seconds"] for line in lines[1:] if line["step"] not in beside),
        "run_seconds": sum(line["step_seconds"] for line in lines) + sum(m["seconds"]["stall"] for m in manifests),
        "bytes": sum(facts["bytes"] for facts in manifests[0]["files"].values()),
    }
    for path in sorted(run.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return row


def _together(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "stall_seconds": median(seconds for row in rows for seconds in row["stall_seconds"]),
        "write_seconds": median(seconds for row in rows for seconds in row["write_seconds"]),
        **{
            key: median(row[key] for row in rows)
            for key in ("step_seconds_beside", "step_seconds_alone", "run_seconds")
        },
    }


if __name__ == "__main__":
    sys.exit(main())
