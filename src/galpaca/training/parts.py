"""What a rank's shards hold of a model's parameters."""

from typing import Any

from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from galpaca.model.parts import Part, plain_name


def sharded_parts(model: nn.Module) -> list[Part]:
    """What this rank's shards hold of each parameter.

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
