"""Timelines: their peaks against a walk through every layer, and that all that are counted are whole."""

import json
from collections.abc import Iterator, Mapping
from itertools import product

import pytest

from galpaca.estimate.timeline import FILE, PARTS, Kind, Timeline, num_bytes, timeline_of
from galpaca.model.compute_spec import RECOMPUTATIONS

KINDS = [
    Kind("opt", "single", "full", "wide", "none"),
    Kind("opt", "fsdp", "full", "wide", "full"),
    Kind("llama", "fsdp2", "lora", "wide", "selective"),
    Kind("llama", "ddp", "qlora", "wide", "none"),
]
SIZES = {
    "tokens": 3_000, "targets": 1_700, "hidden": 2_048, "kv": 512, "ffn": 8_192, "vocab": 50_000, "positions": 2_050,
    "rank": 16, "shards": 4, "layer": 50_000_000, "root": 110_000_000, "layer_bytes": 9e7, "root_bytes": 2e8,
    "trained": 1_300_000_000,
}  # fmt: skip


def walked(timeline: Timeline, num_layers: int) -> float:
    """The peak by going through the layers one by one."""
    now = most = 0.0
    for part in parts(num_layers):
        most = max([most, *(now + num_bytes(point, SIZES) for point in timeline.peaks[part])])
        now += num_bytes(timeline.left[part], SIZES)
    return most


def parts(num_layers: int) -> Iterator[str]:
    """Of each layer, forward and backward."""
    last = num_layers - 1
    yield "embedding"
    for index in range(num_layers):
        yield "last forward" if index == last else "first forward" if index == 0 else "middle forward"
    yield "head"
    for index in reversed(range(num_layers)):
        if index == last:
            yield "last backward"
        else:
            yield "first backward" if index == 0 else "next backward" if index == last - 1 else "middle backward"
    yield "embedding backward"


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4, 12, 48])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_fullest_moment_is_that_of_a_walk_through_all_layers(kind: Kind, num_layers: int) -> None:
    for is_only in (True, False):
        timeline = timeline_of(kind, is_only=is_only)
        assert timeline is not None
        assert num_bytes(timeline.peak(SIZES, num_layers), SIZES) == pytest.approx(
            walked(timeline, num_layers), rel=1e-9
        )


def test_a_peak_in_the_midst_of_layers_is_found_at_their_ends() -> None:
    """Layers that add and those that free: the extremes of what goes evenly are its ends."""
    none: Mapping[str, tuple[Mapping[str, float], ...]] = dict.fromkeys(PARTS, ())
    left = {part: dict[str, float]() for part in PARTS}
    peaks = {**none, "middle forward": ({"tokens": 1.0},), "middle backward": ({"tokens": 5.0},)}
    growing = Timeline({}, {**left, "middle forward": {"tokens": 2.0}, "middle backward": {"tokens": -2.0}}, peaks)
    assert num_bytes(growing.peak(SIZES, 10), SIZES) == (2 * 8 + 5) * SIZES["tokens"]


def test_every_timeline_that_is_counted_is_whole() -> None:
    names = json.loads(FILE.read_text(encoding="utf-8"))
    for name in names:
        for is_only in (True, False):
            timeline = timeline_of(Kind(*name.split(", ")), is_only=is_only)
            assert timeline is not None
            assert timeline.left.keys() == timeline.peaks.keys() == set(PARTS)
            assert num_bytes(timeline.carried, SIZES) >= 0


def test_every_shipped_way_is_counted() -> None:
    for family, strategy, how in product(("opt", "llama"), ("single", "ddp", "fsdp", "fsdp2"), RECOMPUTATIONS):
        for tuning in ("full",) if strategy == "fsdp" else ("full", "lora", "qlora"):
            kind = Kind(family, strategy, tuning, "wide", how)
            assert timeline_of(kind, is_only=False) is not None, kind.name


def test_what_nobody_has_counted_has_none() -> None:
    assert timeline_of(Kind("gpt_neox", "single", "full", "wide", "none"), is_only=True) is None
