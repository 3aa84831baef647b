"""``python -m bench.life``: a run's whole life on this machine's devices, with random weights and the demo's records.

One run is trained through; one is killed after a checkpoint and resumed, and must end in the same bits; one is stopped
by SIGTERM, goes on with fewer ranks, is stopped again, and ends on all of them. Checkpoints are written beside the
training. The released model is loaded. On one node the command is typed once; on several, ``srun`` starts it once for
each rank, with ``--folder`` on a file system that all of them see.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.life.phases import Life
from bench.life.plan import SIZES, LifePlan
from bench.life.ranks import LifeProcess, Ranks
from bench.results import RESULTS
from bench.session import Session
from galpaca.app.cluster.ranks import global_rank, num_launched
from galpaca.app.rehearsal.channel import Channel, launch_of
from galpaca.app.rehearsal.coordinator import Coordinator, follow
from galpaca.errors import StoppedBySignal
from galpaca.formatting import format_bytes
from galpaca.runs.shutdown import Shutdown

# What is running when time is up may still come to its end.
_GRACE_SECONDS = 45.0


def main() -> int:
    given = arguments()
    plan = make_plan(given)
    if plan.accelerator == "cpu" and not given.tiny:
        print(f"no GPU is here, and a CPU would take hours for {plan.shape}: --tiny", file=sys.stderr)
        return 2
    rank, shutdown = global_rank(), Shutdown.of_process()
    process, channel = LifeProcess(plan, rank), Channel(plan.folder, launch_of(os.environ))
    limit_seconds = 60 * given.minutes + _GRACE_SECONDS
    with shutdown.listening(), shutdown.deferring():
        try:
            if rank:
                return follow(process, channel, shutdown, limit_seconds)
            return _lead(plan, Coordinator(process, num_launched(), channel, shutdown), process, given)
        except StoppedBySignal as stop:
            print(stop, file=sys.stderr)
            return stop.exit_code


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.life", description=__doc__)
    parser.add_argument("--shape", choices=SIZES, default="1.3b", help="of the model (%(default)s)")
    parser.add_argument("--devices", type=int, default=1, help="on a node (%(default)s)")
    parser.add_argument("--nodes", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--fewer", type=int, help="ranks of the start on fewer (half of one node's, or of all)")
    parser.add_argument("--strategy", default="fsdp", help="(%(default)s)")
    parser.add_argument("--precision", default="16-mixed", help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="of a run (%(default)s)")
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints (%(default)s)")
    parser.add_argument(
        "--as-is", action="store_true", help="without deterministic algorithms: equal bits are reported, not required"
    )
    parser.add_argument("--tiny", action="store_true", help="a tiny model on two processes of this machine's CPU")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin nothing new after this long (%(default)s)")
    parser.add_argument("--folder", type=Path, help="an empty one for the runs; by default a temporary one")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    given = parser.parse_args()
    if given.tiny:
        given.shape, given.devices, given.strategy, given.precision = "tiny", 2, "fsdp", "32-true"
    if not 0 < given.every < given.steps:
        parser.error(f"--every {given.every}: from 1 to --steps {given.steps}, less one")
    if given.nodes > 1 and given.folder is None:
        parser.error("--folder: several nodes need one that all of them see")
    return given


def make_plan(given: argparse.Namespace) -> LifePlan:
    """The life that was requested."""
    ranks = given.devices * given.nodes
    return LifePlan(
        folder=(given.folder or Path(tempfile.gettempdir()) / f"galpaca-life-{os.getpid()}").resolve(),
        shape=given.shape,
        accelerator="cpu" if given.tiny or not _has_gpu() else "gpu",
        devices=given.devices,
        nodes=given.nodes,
        fewer=given.fewer or max(1, min(given.devices, ranks // 2)),
        strategy=given.strategy,
        precision=given.precision,
        steps=given.steps,
        every_steps=given.every,
        deterministic=not given.as_is,
    )


def _has_gpu() -> bool:
    """By the driver's own program, so that this process takes no memory of the card."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).stdout.strip() != b""
    except OSError:
        return False


class LifeSession(Session):
    """A session that writes down a life."""

    def __init__(self, minutes: float, out: Path, plan: LifePlan) -> None:
        machines = f"{plan.num_ranks}-ranks" if plan.nodes == 1 else f"{plan.nodes}-nodes-{plan.num_ranks}-ranks"
        how = "" if plan.deterministic else "-as-is"
        name = f"life-{plan.shape}-{plan.strategy}-{plan.precision}-{machines}{how}"
        super().__init__(minutes, out, name, program="life")
        self.plan = plan
        self.phases: dict[str, Any] = {}

    def figures(self) -> dict[str, Any]:
        configuration = {key: str(value) if key == "folder" else value for key, value in vars(self.plan).items()}
        return {"configuration": configuration, "phases": self.phases, **super().figures()}


def _lead(plan: LifePlan, coordinator: Coordinator, process: LifeProcess, given: argparse.Namespace) -> int:
    code = 1
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        coordinator.gather()
        session = LifeSession(given.minutes, given.out, plan)
        limit_seconds = 60 * given.minutes + _GRACE_SECONDS
        life = Life(plan, session, lambda watch: Ranks(coordinator, process, limit_seconds, watch))
        session.phases = life.phases
        free = shutil.disk_usage(plan.folder).free
        print(f"{plan.folder}: takes up to {format_bytes(plan.disk_bytes)}, {format_bytes(free)} are free", flush=True)
        life.live()
        print("\n".join(session.problems()))
        print(f"written: {session.save()}")
        code = 1 if session.failures or not life.phases else 0
        return code
    finally:
        coordinator.end(code)
        if code == 0:  # else logs say why
            shutil.rmtree(plan.folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
