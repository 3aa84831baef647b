"""Records steps, in a process that has a pretended card: kinds from standard input, windows to standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from bench.timelines.kinds import Kind
from bench.timelines.recorder import Recorder, Window, listen
from galpaca.app.estimate.traced import trace
from galpaca.fake_cuda.inductor import recorded


def recorded_windows(kind: Kind, num_micro_batches: int) -> list[Window]:
    """Those of the second step's last micro-batch, and what follows it."""
    torch._dynamo.reset()
    recorded.programs.clear()
    recorders: list[Recorder] = []

    def watch(model: Any, recorder: Any) -> None:
        recorders.append(recorder)
        listen(model, recorder, is_sharded=kind.is_sharded)

    trace(kind.trace(num_micro_batches), count=Recorder, watch=watch)
    windows = recorders[0].windows
    first = max(index for index, window in enumerate(windows) if window.name == "embedding")
    return windows[first:]


def main() -> None:
    for kind, num_micro_batches in json.load(sys.stdin):
        windows = recorded_windows(Kind(**kind), num_micro_batches)
        print(json.dumps([kind, num_micro_batches, [window._asdict() for window in windows]]), flush=True)


if __name__ == "__main__":
    main()
