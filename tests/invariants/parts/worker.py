"""One of several ranks: shards a model in each way, saves what it holds, and restores it into another model."""

import sys
from pathlib import Path
from typing import Any

import torch
from invariants.gradients.toy import make_model
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from transformers.models.opt.modeling_opt import OPTDecoderLayer

from galpaca.training.strategies.fully_sharded import FullySharded
from galpaca.training.strategies.fully_sharded2 import FullySharded2
from galpaca.training.strategies.step_strategy import StepStrategy

FLAT = ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD")
ROWS = {"rows": {"shards": 4}, "rows, hybrid": {"copies": 2, "shards": 2}}
SHARDINGS = (*FLAT, *ROWS)


class Holder(nn.Module):
    """Stands for the Lightning module around the model."""

    def __init__(self) -> None:
        super().__init__()
        self.network = make_model()


def flat_strategy(sharding: str) -> StepStrategy:
    wrapped = FullyShardedDataParallel(
        Holder(),
        auto_wrap_policy=ModuleWrapPolicy({OPTDecoderLayer}),
        sharding_strategy=ShardingStrategy[sharding],
        device_id=torch.device("cpu"),
        use_orig_params=True,
        device_mesh=init_device_mesh("cpu", (2, 2)) if sharding == "HYBRID_SHARD" else None,
    )
    strategy = FullySharded(torch.float32, "FULL_SHARD", "BACKWARD_PRE")
    strategy.model = wrapped
    strategy.cluster_environment = TorchElasticEnvironment()
    return strategy


def row_strategy(mesh: dict[str, int]) -> StepStrategy:
    holder: Any = Holder()
    strategy = FullySharded2(None, torch.float32, hybrid="copies" in mesh, reshard_after_forward=True)
    strategy._lightning_module = holder
    strategy._device_mesh = init_device_mesh("cpu", tuple(mesh.values()), mesh_dim_names=tuple(mesh))
    for layer in holder.network.model.decoder.layers:
        fully_shard(layer, mesh=strategy.device_mesh)
    fully_shard(holder.network, mesh=strategy.device_mesh)
    return strategy


def main() -> None:
    folder = Path(sys.argv[1])
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    for sharding in SHARDINGS:
        strategy = row_strategy(ROWS[sharding]) if sharding in ROWS else flat_strategy(sharding)
        index, count = strategy.replica()
        saved = [
            (part.name, part.shape, part.start, part.stop, part.of(part.parameter).clone())
            for part in (part.share(index, count) for part in strategy.parts())
        ]
        torch.save(saved, folder / f"{sharding}-{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
