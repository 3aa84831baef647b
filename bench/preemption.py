"""``python -m bench.preemption``: runs on a real SLURM, warned, preempted and requeued at random moments.

Every one must come back by itself, go on from its very last step, and end with the weights, to the bit, and the figures
of a run that was never disturbed. The tests of ``tests/cluster`` do one of each; here are random moments, from a start
to deep in training, both ways of SLURM to track processes, data workers, signals to one rank and to all, preemption
with and without the signal that a job requested, an array, two nodes that are hosts of their own, and SIGTERM without
a preemption behind it. Half an hour on 2 cores. Needs root and control groups of version 1 for all of it; what is not
there is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.results import REPOSITORY, RESULTS, save

if TYPE_CHECKING:
    from cluster.jobs import Desk, Job

_TESTS = REPOSITORY / "tests"
# Enough for all signals of one run, each after a few seconds of training at most.
_STEPS = 500
# So few that a job has time for them after it has come back, and too many for what is left before.
_STEPS_OUT_OF_TIME = 300
_SEED = 7
_SECONDS_IN_TRAINING = 2.0
_WAYS = ("USR1 to all", "USR1 to one rank", "preempted")


@dataclass(frozen=True)
class Plan:
    """One run that is disturbed several times, or an array of two.

    Attributes:
        process_tracking, network, user_signal: of the SLURM, as in ``cluster.slurm.Kind``.
        workers: data workers of each rank.
        signals: how often each run is disturbed.
        nodes: of the job, which has two ranks.
        array: two jobs of one array.
        by_hand: SIGTERM that no preemption sends: it does not requeue, and the job is submitted again.
        out_of_time: the job reaches its time limit, and no signal has warned it.
    """

    process_tracking: str
    workers: int
    signals: int
    user_signal: bool = True
    network: str = "machine"
    nodes: int = 1
    array: bool = False
    by_hand: bool = False
    out_of_time: bool = False

    @property
    def title(self) -> str:
        workers = f"{self.workers} data workers" if self.workers != 1 else "1 data worker"
        preemption = "with a user signal" if self.user_signal else "SIGTERM only"
        kind = "array of 2" if self.array else f"{self.nodes} x {2 // self.nodes} ranks"
        how = "SIGTERM alone, submitted again" if self.by_hand else f"preemption {preemption}"
        how = "time limit without a warning" if self.out_of_time else how
        return f"{self.process_tracking}, {self.network}, {workers}, {how}, {kind}"


PLANS = (
    Plan("linuxproc", workers=0, signals=5, user_signal=False),
    Plan("linuxproc", workers=1, signals=5),
    Plan("cgroup", workers=0, signals=5),
    Plan("cgroup", workers=1, signals=5, user_signal=False),
    Plan("linuxproc", workers=0, signals=1, user_signal=False, array=True),
    Plan("cgroup", workers=0, signals=2, network="two hosts", nodes=2),
    Plan("linuxproc", workers=1, signals=4, by_hand=True),
    Plan("cgroup", workers=0, signals=4, by_hand=True),
    Plan("linuxproc", workers=0, signals=1, out_of_time=True),
    Plan("cgroup", workers=0, signals=1, out_of_time=True),
)


def main() -> int:
    given = _arguments()
    sys.path.insert(0, str(_TESTS))
    from cluster.places import UnavailableError
    from cluster.slurm import fetch
    from forked import Server

    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="true")
    started = time.perf_counter()
    rows: list[dict[str, object]] = []
    with ExitStack() as stack:
        prefix = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galpaca-slurm-packages-")))
        fetch(prefix)
        server = Server(_TESTS)
        stack.callback(server.close)
        for plan in (plan for plan in PLANS if given.only in plan.title):
            print(plan.title, flush=True)
            try:
                for row in _disturb(plan, prefix, server.address, -(-plan.signals // given.share)):
                    rows.append({"plan": plan.title, **row})
                    print(f"{len(rows):>4}  " + "  ".join(str(value) for value in row.values()), flush=True)
            except UnavailableError as error:
                rows.append({"plan": plan.title, "result": f"not done: {error}"})
                print(f"      not done: {error}", flush=True)
            except (AssertionError, TimeoutError, subprocess.CalledProcessError) as error:
                rows.append({"plan": plan.title, "result": f"failed: {str(error)[-1500:]}"})
                print(f"      failed: {error}", flush=True)
    signals = [row for row in rows if "way" in row]
    failed = [row for row in rows if str(row["result"]).startswith("failed")]
    minutes = round((time.perf_counter() - started) / 60, 1)
    left_out = sum(str(row["result"]).startswith("not done") for row in rows)
    print(f"{len(signals)} disturbed, {len(failed)} not as if nothing had been, {left_out} left out, in {minutes} min")
    figures = {"disturbed": len(signals), "left_out": left_out, "failed": failed, "minutes": minutes, "rows": rows}
    print(f"written: {save('preemption', figures, given.out)}")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.preemption", description=__doc__)
    parser.add_argument("--share", type=int, default=1, help="take one of so many of the planned signals (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORDS", help="plans with these words in their title")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    return parser.parse_args()


def _disturb(plan: Plan, prefix: Path, server: str, signals: int) -> Iterator[dict[str, object]]:
    from cluster.jobs import Desk, Layout
    from cluster.slurm import Kind, running

    kind = Kind(plan.process_tracking, plan.network, plan.user_signal)  # type: ignore[arg-type]
    records = json.loads((REPOSITORY / "src/galpaca/demo/records.json").read_text(encoding="utf-8"))[::12][:40]
    with tempfile.TemporaryDirectory(prefix="galpaca-preemption-") as name, running(prefix, kind) as slurm:
        folder = Path(name)
        (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
        desk = Desk(slurm, folder, REPOSITORY / "src/galpaca/demo/tokenizer", folder / "records.json")
        num_steps = _STEPS_OUT_OF_TIME if plan.out_of_time else _STEPS
        overrides = (f"trainer.max_steps={num_steps}", f"trainer.data_workers={plan.workers}")
        straight = desk.straight(server, *overrides)
        layout = Layout(plan.nodes, 2 // plan.nodes)
        if plan.by_hand:
            yield from _terminate(desk, plan, signals, overrides, straight)
        elif plan.out_of_time:
            yield from _run_out_of_time(desk, overrides, straight)
        elif plan.array:
            yield from _disturb_array(desk, desk.submit_array("array", *overrides, layout=layout), straight)
        else:
            job = desk.submit("run", *overrides, layout=layout)
            yield from _disturb_job(desk, job, signals, plan.title)
            yield {"result": _end(job, signals, straight)}


def _disturb_job(desk: Desk, job: Job, signals: int, title: str) -> Iterator[dict[str, object]]:
    """One random signal after the other, each as soon as the run is back from the one before."""
    generator = random.Random(f"{_SEED} {title}")
    first_way = generator.randrange(len(_WAYS))
    job.wait_for_handlers(0)
    started = time.monotonic()
    job.wait_for_step(1)
    start_seconds = time.monotonic() - started
    for number in range(signals):  # until one fails
        # Every second one in training, the others from the moment that signals are taken: imports and the start.
        in_training = number % 2 == 0
        if in_training:
            job.wait_for_step(job.saved() + 1)
        seconds = generator.uniform(0, _SECONDS_IN_TRAINING if in_training else start_seconds)
        time.sleep(seconds)
        way = _WAYS[(first_way + number) % len(_WAYS)]
        row = _disturbed(desk, job, number, way, generator.randrange(2), seconds)
        yield {"while": "training" if in_training else "starting", **row}
        if row["result"] != "equal":
            return


def _disturbed(desk: Desk, job: Job, number: int, way: str, rank: int, seconds: float) -> dict[str, object]:
    row: dict[str, object] = {"way": way if way != "USR1 to one rank" else f"USR1 to rank {rank}"}
    row |= {"seconds": round(seconds, 2), "at_step": job.step()}
    try:
        if way == "preempted":
            desk.preempt(job)
        elif way == "USR1 to all":
            job.signal(signal.SIGUSR1)
        else:
            job.signal_rank(rank, signal.SIGUSR1)
        requested = time.monotonic()
        lost = _come_back(job, number + 1)
        return {**row, **lost, "back_after_seconds": round(time.monotonic() - requested, 1), "result": "equal"}
    except (AssertionError, TimeoutError) as error:
        return {**row, "result": f"failed: {str(error)[-1500:]}"}


def _come_back(job: Job, restarts: int) -> dict[str, object]:
    """Waits until a job is back; what it lost."""
    job.wait_for_handlers(restarts)
    reached, saved = job.step(), job.saved()
    assert saved == reached, f"{reached - saved} steps were lost"
    return {"saved_at_step": saved}


def _terminate(
    desk: Desk, plan: Plan, signals: int, overrides: Sequence[str], straight: Path
) -> Iterator[dict[str, object]]:
    """SIGTERM without a preemption behind it: saved and not requeued, so that the same job is submitted again."""
    generator = random.Random(f"{_SEED} {plan.title}")
    saved = 0
    for number in range(signals):
        job = desk.submit("run", *overrides)
        job.wait_for_step(saved + 1)
        time.sleep(generator.uniform(0, _SECONDS_IN_TRAINING))
        rank = generator.randrange(2)
        row: dict[str, object] = {"way": f"TERM to rank {rank}" if number % 2 else "TERM to all", "at_step": job.step()}
        if number % 2:
            job.signal_rank(rank, signal.SIGTERM)
        else:
            job.signal(signal.SIGTERM)
        try:
            facts = job.finish("FAILED")
            assert (facts["Restarts"], facts["ExitCode"]) == ("0", "143:0"), job.output()
            saved = job.saved()
            assert saved == job.step(), f"{job.step() - saved} steps were lost"
            yield {**row, "saved_at_step": saved, "result": "equal"}
        except (AssertionError, TimeoutError) as error:
            yield {**row, "result": f"failed: {str(error)[-1500:]}"}
            return
    yield {"result": _end(desk.submit("run", *overrides), 0, straight)}


def _run_out_of_time(desk: Desk, overrides: Sequence[str], straight: Path) -> Iterator[dict[str, object]]:
    """SLURM counts minutes, so that the first start waits until most of its one is gone."""
    wait = '[ "${SLURM_RESTART_COUNT:-0}" != 0 ] || sleep 45'
    job = desk.submit("run", *overrides, directives=("--time=1 --signal=CONT@1",), before=[wait])
    job.wait_for_step(1)
    row: dict[str, object] = {"way": "TERM at the time limit", "at_step": job.step()}
    try:
        yield {**row, **_come_back(job, 1), "result": "equal"}
    except (AssertionError, TimeoutError) as error:
        yield {**row, "result": f"failed: {str(error)[-1500:]}"}
        return
    yield {"result": _end(job, 1, straight, _STEPS_OUT_OF_TIME)}


def _disturb_array(desk: Desk, jobs: list[Job], straight: Path) -> Iterator[dict[str, object]]:
    """Both tasks make room at once, for one job."""
    for job in jobs:
        job.wait_for_step(3)
    desk.preempt(*jobs)
    for job in jobs:
        row: dict[str, object] = {"way": "preempted", "task": job.id, "at_step": job.step()}
        try:
            yield {**row, **_come_back(job, 1), "result": "equal"}
        except (AssertionError, TimeoutError) as error:
            yield {**row, "result": f"failed: {str(error)[-1500:]}"}
    for job in jobs:
        yield {"result": _end(job, 1, straight)}


def _end(job: Job, signals: int, straight: Path, num_steps: int = _STEPS) -> str:
    """What became of a run: ``equal``, or how it differs from the one that was never disturbed."""
    try:
        facts = job.finish(seconds=300)
        assert facts["Restarts"] == str(signals), f"it came back {facts['Restarts']} times"
        job.assert_every_step_once(num_steps)
        job.assert_equals(straight)
    except (AssertionError, TimeoutError) as error:
        return f"failed: {str(error)[-1500:]}"
    return "equal"


if __name__ == "__main__":
    sys.exit(main())
