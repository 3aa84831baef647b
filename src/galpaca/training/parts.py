"""What a rank's shards hold of a model's parameters."""

from collections.abc import Iterable
from typing import Any, cast

from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor, Shard

from galpaca.model.parts import Part, plain_name


def flat_parts(model: nn.Module) -> list[Part]:
    """What this rank's shards hold of each parameter, as FSDP1 splits them: layers as one flat tensor.

    torch says how it split its flat parameters in attributes that are not public; ``tests/invariants/test_parts.py``
    puts all ranks' parts together again.
    """
    names = {id(parameter): plain_name(name) for name, parameter in model.named_parameters()}
    parts = []
    for unit in FullyShardedDataParallel.fsdp_modules(model):
        if unit._handle is None:
            continue
        flat: Any = unit._handle.flat_param
        for parameter, shape, shard in zip(flat._params, flat._shapes, flat._shard_param_infos, strict=True):
            if shard.in_shard and shard.numel_in_shard:
                start = shard.intra_param_start_idx
                stop = start + shard.numel_in_shard
                parts.append(Part(names[id(parameter)], tuple(shape), start, stop, parameter, start))
    return parts


def row_parts(shards: Iterable[tuple[str, DTensor, nn.Parameter]]) -> list[Part]:
    """What this rank holds of each parameter, as FSDP2 splits them: each along its first dimension.

    Args:
        shards: name of each parameter, how it is split, and this rank's rows of it, which may be none.
    """
    parts = []
    for name, split, rows in shards:
        start = _first_row(split) * (split.numel() // split.shape[0])
        if rows.numel():
            parts.append(Part(plain_name(name), tuple(split.shape), start, start + rows.numel(), rows, start))
    return parts


def _first_row(split: DTensor) -> int:
    """Of this rank's, in the whole parameter."""
    (dimension,) = [number for number, placement in enumerate(split.placements) if placement.is_shard()]
    mesh, shard = split.device_mesh, cast(Shard, split.placements[dimension])
    _, first = shard.local_shard_size_and_offset(split.shape[0], mesh.size(dimension), mesh.get_local_rank(dimension))
    return int(first)
