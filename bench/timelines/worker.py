"""Records steps, in a process that has a pretended card: kinds by its argument or standard input, windows as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from bench.timelines.kinds import Kind
from bench.timelines.recorder import Recorder, Window, listen
from galpaca.app.estimate.traced import trace
from galpaca.fake_cuda.inductor import recorded

# Of each step. The first compiles; then one with two micro-batches, whose last counts, and one with a single one.
_MICRO_BATCHES = (2, 2, 1, 1)
_COUNTED = {"last": 1, "only": 3}


def recorded_windows(kind: Kind) -> tuple[dict[str, list[Window]], dict[str, float]]:
    """Those of a step's last micro-batch and of an only one, each with the update; and a rank's gradients by sizes."""
    torch._dynamo.reset()
    recorded.programs.clear()
    recorders: list[Recorder] = []

    def watch(model: Any, recorder: Any) -> None:
        recorders.append(recorder)
        listen(model, recorder, is_sharded=kind.is_sharded)

    trace(kind.trace(_MICRO_BATCHES), count=Recorder, watch=watch)
    windows = recorders[0].windows
    starts = [index for index, window in enumerate(windows) if window.name == "embedding"]
    found = {}
    for name, step in _COUNTED.items():
        last = sum(_MICRO_BATCHES[: step + 1]) - 1  # of all micro-batches
        end = starts[last + 1] if last + 1 < len(starts) else None
        found[name] = windows[starts[last] : end]
    return found, dict(recorders[0].gradients)


def main() -> None:
    for kind in json.loads(sys.argv[1] if len(sys.argv) > 1 else sys.stdin.read()):
        found, gradients = recorded_windows(Kind(**kind))
        windows = {name: [window._asdict() for window in some] for name, some in found.items()}
        print(json.dumps([kind, windows, gradients]), flush=True)


if __name__ == "__main__":
    main()
