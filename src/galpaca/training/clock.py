"""Points in time on the device's own clock, taken without waiting for it."""

import time

import torch

# On a GPU an event in its stream, on a CPU the host's seconds.
Mark = torch.cuda.Event | float


def mark(device: torch.device) -> Mark:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(earlier: Mark, later: Mark) -> float:
    """Seconds on the device. A GPU must have passed both marks."""
    if isinstance(earlier, torch.cuda.Event) and isinstance(later, torch.cuda.Event):
        return earlier.elapsed_time(later) / 1000
    assert isinstance(earlier, float)
    assert isinstance(later, float)
    return later - earlier
