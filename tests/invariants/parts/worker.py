"""One of several ranks: shards a model in each way, saves what it holds, and restores it into another model."""

import sys
from pathlib import Path

import torch
from invariants.gradients.toy import make_model
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from transformers.models.opt.modeling_opt import OPTDecoderLayer

from galpaca.training.parts import flat_parts
from galpaca.training.strategies.fully_sharded import FullySharded

SHARDINGS = ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD")


class Holder(nn.Module):
    """Stands for the Lightning module around the model."""

    def __init__(self) -> None:
        super().__init__()
        self.model = make_model()


def main() -> None:
    folder = Path(sys.argv[1])
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    for sharding in SHARDINGS:
        mesh = init_device_mesh("cpu", (2, 2)) if sharding == "HYBRID_SHARD" else None
        wrapped = FullyShardedDataParallel(
            Holder(),
            auto_wrap_policy=ModuleWrapPolicy({OPTDecoderLayer}),
            sharding_strategy=ShardingStrategy[sharding],
            device_id=torch.device("cpu"),
            use_orig_params=True,
            device_mesh=mesh,
        )
        strategy = FullySharded(torch.float32)
        strategy.model = wrapped
        strategy.cluster_environment = TorchElasticEnvironment()
        index, count = strategy.replica()
        saved = [
            (part.name, part.shape, part.start, part.stop, part.of(part.parameter).clone())
            for part in (part.share(index, count) for part in flat_parts(wrapped))
        ]
        torch.save(saved, folder / f"{sharding}-{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
