"""``python -m bench.endurance``: runs killed at every write of a checkpoint and at random moments, each started again.

Every one must end with the weights, to the bit, and the figures of the run that was never killed. The tests of
``tests/faults`` do a dozen of these; here are all strategies, both ranks, checkpoints written beside the training and
before it. Then starts are stopped at random moments, each of which must end in one line with the documented exit code.
About three quarters of an hour on 2 cores; ``--share 8`` takes six minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.results import REPOSITORY, RESULTS, save

if TYPE_CHECKING:
    from faults.kills import Outcome

_TESTS = REPOSITORY / "tests"
_TOKENIZER = REPOSITORY / "src" / "galpaca" / "demo" / "tokenizer"


@dataclass(frozen=True)
class Plan:
    """What is killed in one way of training.

    Attributes:
        every: takes every so manieth write of a run's checkpoints.
        moments: random moments on top.
    """

    strategy: str
    asynchronous: bool
    ranks: tuple[int, ...]
    every: int
    moments: int
    tuning: str = "full"


PLANS = (
    Plan("single", asynchronous=False, ranks=(0,), every=1, moments=5),
    Plan("single", asynchronous=True, ranks=(0,), every=2, moments=5),
    Plan("ddp", asynchronous=True, ranks=(0, 1), every=5, moments=3),
    Plan("fsdp", asynchronous=False, ranks=(0, 1), every=5, moments=3),
    Plan("fsdp", asynchronous=True, ranks=(0, 1), every=5, moments=3),
    Plan("fsdp2", asynchronous=True, ranks=(0, 1), every=5, moments=3),
    Plan("single", asynchronous=True, ranks=(0,), every=8, moments=3, tuning="lora"),
    Plan("ddp", asynchronous=False, ranks=(0, 1), every=16, moments=3, tuning="qlora"),
)
NUM_STARTS = 100


def main() -> int:
    given = _arguments()
    sys.path[:0] = [str(_TESTS), str(REPOSITORY)]
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="true")
    from forked import Server

    started = time.perf_counter()
    server = Server(_TESTS)
    rows: list[dict[str, object]] = []
    starts: list[dict[str, object]] = []
    try:
        for plan in (plan for plan in PLANS if plan.tuning in given.tuning):
            with tempfile.TemporaryDirectory(prefix="galpaca-endurance-") as name:
                for row in _kill(plan, Path(name), server.address, given.share):
                    rows.append(row)
                    print(f"{len(rows):>4}  " + "  ".join(str(value) for value in row.values()), flush=True)
        if "full" in given.tuning:
            starts += _stop_starts(NUM_STARTS // given.share)
    finally:
        server.close()
        failed = [row for row in rows if row["result"] != "equal"]
        minutes = (time.perf_counter() - started) / 60
        print(f"{len(rows)} kills, {len(rows) - len(failed)} runs ended equal to the bit, in {minutes:.1f} min")
        figures = {"kills": len(rows), "failed": failed, "minutes": round(minutes, 1), "rows": rows, "starts": starts}
        name = "endurance" if "full" in given.tuning else "endurance-adapters"
        print(f"written: {save(name, figures, given.out)}")
    return 1 if failed or any(start["result"] != "stopped" for start in starts) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.endurance", description=__doc__)
    parser.add_argument("--share", type=int, default=1, help="take one of so many of the planned writes (%(default)s)")
    parser.add_argument(
        "--tuning", nargs="+", default=["full", "lora", "qlora"], help="which of the plans (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    return parser.parse_args()


def _kill(plan: Plan, folder: Path, server: str, share: int) -> Iterator[dict[str, object]]:
    from faults.kills import Bench, moments

    bench = Bench(
        folder, server, _TOKENIZER, _records(folder), plan.strategy, asynchronous=plan.asynchronous, tuning=plan.tuning
    )
    bench.straight()
    way = {"strategy": plan.strategy, "asynchronous": plan.asynchronous, "tuning": plan.tuning}
    for rank in plan.ranks:
        for number, write in list(enumerate(bench.writes(rank), start=1))[:: plan.every * share]:
            what = f"rank {rank}, before {write}"
            yield {**way, "killed": what, **_result(partial(bench.killed_at_write, number, rank))}
    for seconds in moments(plan.moments, 0.6):
        what = f"{seconds:.3f} s after the first step"
        yield {**way, "killed": what, **_result(partial(bench.killed_after, seconds))}


def _stop_starts(number: int) -> Iterator[dict[str, object]]:
    from faults.kills import moments
    from faults.starts import Starts

    with tempfile.TemporaryDirectory(prefix="galpaca-endurance-") as name:
        starts = Starts(Path(name), _TOKENIZER, _records(Path(name)))
        for seconds in moments(number, starts.seconds()):
            stop = starts.stopped_after(seconds)
            try:
                stop.check()
                row = {"result": "stopped"}
            except AssertionError as error:
                row = {"result": f"failed: {str(error)[-500:]}"}
            print(f"start stopped after {stop.after_seconds:.3f} s: {stop.exit_code}  {row['result']}", flush=True)
            yield {"after_seconds": round(stop.after_seconds, 3), "exit_code": stop.exit_code, **row}


def _records(folder: Path) -> Path:
    path = folder / "records.json"
    records = json.loads((REPOSITORY / "src/galpaca/demo/records.json").read_text(encoding="utf-8"))[::12][:40]
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def _result(kill: Callable[[], Outcome]) -> dict[str, object]:
    try:
        return {**asdict(kill()), "result": "equal"}
    except AssertionError as error:
        return {"result": f"failed: {str(error)[:500]}"}


if __name__ == "__main__":
    sys.exit(main())
