"""From windows to a timeline: what each part leaves, and those of its points that are the highest for some model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from bench.timelines.kinds import Kind
from galpaca.estimate.memory import held_bytes
from galpaca.estimate.timeline import NUM_LAYERS, PARTS, num_bytes

Bytes = dict[str, float]

# By part the window that stands for it; layers between the first and the last are alike, but for the last backward one.
_LAST = NUM_LAYERS - 1
_WINDOWS = dict(
    zip(
        PARTS,
        (
            "embedding",
            "forward 0",
            "forward 2",
            f"forward {_LAST}",
            "head",
            f"backward {_LAST}",
            f"backward {_LAST - 1}",
            "backward 2",
            "backward 0",
            "embedding backward",
        ),
        strict=True,
    )
)
# Width of the stream, of keys over all heads and of the feed-forward block, vocabulary and positions.
_SHAPES: Mapping[str, Sequence[tuple[int, float, float, int]]] = {
    "opt": [(width, 1, 4, 50_000) for width in (768, 2_048, 4_096, 7_168, 10_240)],
    "llama": [
        (576, 1 / 3, 8 / 3, 49_152),
        (2_048, 1, 4, 49_152),
        (2_048, 1 / 4, 4, 128_256),
        (3_072, 1 / 3, 8 / 3, 128_256),
        (4_096, 1 / 4, 3.5, 128_256),
    ],
}
_TOKENS = (256, 1_024, 4_096, 16_384)
_TARGET_SHARES = (0.05, 0.5, 0.95)
_NUM_SHARDS = (2, 8, 64)
_DIGITS = 4
# Bytes for each value, below which rounding and small tensors are all that there is.
_LITTLE = 0.3
_WHOLE = ("layer", "root", "trained")
# Nothing is computed backward through an embedding that is frozen.
_NONE: Mapping[str, Any] = {"left": {}, "points": []}


def timeline(
    kind: Kind, windows: Sequence[Mapping[str, Any]], gradients: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """JSON-ready: of each part what it leaves and its highest points; and what is there before beside what is held.

    Args:
        gradients: of a rank, by sizes, where earlier micro-batches have left them.
    """
    by_name = {window["name"]: window for window in windows}
    parts = {}
    for part, name in _WINDOWS.items():
        window = by_name.get(name, _NONE)
        points = [plain(point) for point in window["points"]]
        parts[part] = {"left": plain(window["left"]), "peaks": highest(points, list(samples(kind.family)))}
    return {"carried": carried(kind, windows[0], gradients), **parts}


def carried(kind: Kind, window: Mapping[str, Any], gradients: Mapping[str, float] | None) -> Bytes:
    """What a strategy keeps from one micro-batch to the next, beside weights, moments and gradients."""
    if not kind.strategy.startswith("fsdp") or kind.strategy.startswith("fsdp2"):
        # What is sharded are gradients, of a whole layer end to end; adapters' are next to nothing.
        kept = {name: value for name, value in plain(window["beside"]).items() if "shards" not in name}
        return {name: value for name, value in kept.items() if "rank" not in name}
    # FSDP1's optimizer sees pieces of parameters whose sizes say nothing: what is in no layer stays gathered.
    model, shards = kind.model, kind.sharding.num_shards
    held = sum(held_bytes(model, shards, is_only=gradients is None))
    each = (window["before"] - held) / model.sizes(0, 0, shards)["root"]
    return {"root": round(each, 2)} if abs(each) > _LITTLE else {}


def plain(found: Mapping[str, float]) -> Bytes:
    """Without what is small whatever the model: a few values for each token, or for each unit of a width."""
    named = {name: value for name, value in found.items() if "*" in name or name.startswith(_WHOLE)}
    kept = {name: round(value, _DIGITS) for name, value in named.items()}
    return {name: value for name, value in sorted(kept.items()) if value}


def highest(points: Iterable[Bytes], sizes: Sequence[Mapping[str, float]]) -> list[Bytes]:
    """Those that are higher than all others at some sizes, in their order."""
    distinct = list({tuple(point.items()): point for point in points}.values())
    if not distinct:
        return []
    chosen = {max(range(len(distinct)), key=lambda i: num_bytes(distinct[i], size)) for size in sizes}
    return [distinct[index] for index in sorted(chosen)]


def samples(family: str) -> Iterator[dict[str, float]]:
    """Sizes of steps that somebody might train."""
    for shape, tokens, share, shards in product(_SHAPES[family], _TOKENS, _TARGET_SHARES, _NUM_SHARDS):
        hidden, kv, ffn, vocab = shape
        sizes = {"tokens": tokens, "targets": tokens * share, "hidden": hidden, "kv": kv * hidden, "ffn": ffn * hidden}
        matrices = 3 if family == "llama" else 2
        layer = 2 * hidden**2 * (1 + kv) + matrices * ffn * hidden**2
        root = (vocab + (2_050 if family == "opt" else 0)) * hidden
        sizes |= {"vocab": vocab, "positions": 2_050, "rank": 16, "shards": shards, "layer": layer, "root": root}
        sizes["trained"] = 32 * layer + root
        yield {**sizes, "layer_bytes": 2 * layer, "root_bytes": 2 * root}
