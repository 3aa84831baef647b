"""Everything sharded over ranks by Lightning's ``FSDPStrategy`` (torch's FSDP1)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import BackwardPrefetch, FullyShardedDataParallel, ShardingStrategy
from torch.distributed.fsdp import MixedPrecision as FSDPMixedPrecision
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from galpaca.model.layer_unit import LayerUnit
from galpaca.model.parts import Part, materialize
from galpaca.training.parts import flat_parts
from galpaca.training.strategies.many_ranks import TIMEOUT, ManyRanks, sharded_norm


class FullySharded(ManyRanks, FSDPStrategy):
    """Parameters, gradients and optimizer state sharded over ranks (Lightning's FSDP, torch's FSDP1).

    Each decoder layer is a unit; embeddings and the head stay in the root unit. Every micro-batch reduces its
    gradients: keeping them whole until the last one would take the memory that sharding saves.

    Args:
        reduce_dtype: in which gradients are reduced over ranks.
        sharding_strategy, backward_prefetch: by their names in torch; others as ``FSDPStrategy`` takes them.
    """

    def __init__(
        self, reduce_dtype: torch.dtype, sharding_strategy: str, backward_prefetch: str | None, **kwargs: Any
    ) -> None:
        super().__init__(
            timeout=TIMEOUT,
            state_dict_type="sharded",
            auto_wrap_policy=ModuleWrapPolicy({LayerUnit}),
            sharding_strategy=ShardingStrategy[sharding_strategy],
            backward_prefetch=BackwardPrefetch[backward_prefetch] if backward_prefetch else None,
            **kwargs,
        )
        self._reduce_dtype = reduce_dtype
        self._gradients_wait = False

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        # Gradients of earlier micro-batches are shards next to whole weights, which the compiler cannot take: what it
        # has no program for by then is computed without one.
        stance = "eager_on_recompile" if self._gradients_wait else "default"
        with torch.compiler.set_stance(stance):
            yield
        self._gradients_wait = not last

    @property
    def mixed_precision_config(self) -> FSDPMixedPrecision | None:
        config = super().mixed_precision_config
        # Buffers stay: rounded to 16 bits, frequencies of rotary positions would turn by other angles.
        return config and replace(config, reduce_dtype=self._reduce_dtype, buffer_dtype=None)

    def _setup_model(self, model: nn.Module) -> nn.Module:
        # Not Lightning's own call: it passes the device's index, and a CPU has none.
        return FullyShardedDataParallel(
            model,
            mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy,
            device_id=self.root_device,
            param_init_fn=partial(materialize, device=self.root_device, made={}),
            device_mesh=self._hybrid_mesh(),
            **self.kwargs,
        )

    def _hybrid_mesh(self) -> DeviceMesh | None:
        """Shards within a node and copies between nodes, where that is requested; torch's own guess knows GPUs only."""
        if self.sharding_strategy != ShardingStrategy.HYBRID_SHARD:
            return None
        return init_device_mesh(self.root_device.type, (self.num_nodes, self.num_processes))

    def materialize(self, model: nn.Module) -> None:
        """Does nothing: it is done unit by unit, while FSDP wraps them."""

    def parts(self) -> list[Part]:
        return flat_parts(self.model)

    def weights_replaced(self) -> None:
        # The root unit keeps what it has gathered from one forward to the next where no backward came in between.
        for unit in FullyShardedDataParallel.fsdp_modules(self.model):
            if unit._handle is not None:
                unit._handle.reshard(free_unsharded_flat_param=True)
                unit._handle.post_reshard()

    def replica(self) -> tuple[int, int]:
        if self.model.sharding_strategy == ShardingStrategy.HYBRID_SHARD:
            copies = self.model._inter_node_pg
            return torch.distributed.get_rank(copies), copies.size()
        if self.model.sharding_strategy == ShardingStrategy.NO_SHARD:
            return self.global_rank, self.world_size
        return 0, 1

    def grad_norm(self) -> Tensor:
        # torch's own measures only where it clips as well, which writes all gradients once more.
        if self.model.sharding_strategy == ShardingStrategy.NO_SHARD:
            return super().grad_norm()
        units = FullyShardedDataParallel.fsdp_modules(self.model)
        flat: list[Any] = [unit._handle.flat_param for unit in units if unit._handle is not None]
        parameters = [parameter for one in flat for parameter in one._params]
        return sharded_norm(parameters, self.root_device, self.model.process_group)
