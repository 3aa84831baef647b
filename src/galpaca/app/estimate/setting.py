"""What is to be estimated: a configuration on a cluster, and what follows from it before anything is counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from galpaca.app.config.schema import Config
from galpaca.app.estimate.shape import architecture_of, described_model
from galpaca.app.estimate.steps import PlannedRun
from galpaca.app.train.disk_need import checkpoint_bytes
from galpaca.data.alpaca_lengths import NUM_EXAMPLES
from galpaca.errors import InputError
from galpaca.estimate.flops import Architecture
from galpaca.estimate.memory import HOST_MOMENTS_ROOM_BYTES, TrainedModel, num_parameters
from galpaca.estimate.sharding import Sharding
from galpaca.estimate.speed import Cluster, Work
from galpaca.model.compute_spec import takes_fast_attention
from galpaca.training.optimizers.factory import dtype_bytes


@dataclass(frozen=True)
class Setting:
    """A configuration on cards and nodes.

    Attributes:
        config: as composed, with the number of devices and nodes of ``cluster``.
        content: of the model's ``config.json``.
        num_records: of the run's data.
    """

    config: Config
    cluster: Cluster
    content: dict[str, Any]
    num_records: int = NUM_EXAMPLES

    @classmethod
    def of(cls, config: Config, cluster: Cluster, num_records: int | None = None) -> Self:
        """A configuration on a cluster.

        Args:
            num_records: of the run's data; by default as many as it expects, or Alpaca's.

        Raises:
            InputError: as ``described_model``, ``Config.on`` and a strategy's checks do; or it trains on a CPU.
        """
        if config.trainer.accelerator != "gpu":
            raise InputError("estimates are of GPUs, and the run trains on a CPU", where="trainer", fix="trainer=gpu")
        content, family = described_model(config.model)
        trainer = replace(config.trainer, devices=cluster.devices, num_nodes=cluster.num_nodes)
        bound = replace(config, trainer=trainer).on(family)
        bound.strategy.factory.check_layout(cluster.devices, cluster.num_nodes)
        bound.strategy.factory.check_tuning(bound.tuning.method)
        return cls(bound, cluster, content, num_records or config.data.expected_records or NUM_EXAMPLES)

    @cached_property
    def architecture(self) -> Architecture:
        return architecture_of(self.content, self.config.tuning.method.family)

    @property
    def fast_attention(self) -> bool:
        """As ``Config.fast_attention`` on this card, without asking torch."""
        takes_it = takes_fast_attention(self.config.precision.name, self.config.model.attention_dropout)
        return takes_it and self.cluster.gpu.is_fast

    @cached_property
    def sharding(self) -> Sharding:
        return self.config.strategy.factory.sharding(self.cluster.devices, self.cluster.num_nodes)

    @cached_property
    def model(self) -> TrainedModel:
        method, factory = self.config.tuning.method, self.config.optim.factory
        dtype, adapters = self.config.precision.weight_dtype, method.adapter_config()
        on_host = factory.host_state_bytes(dtype)
        return TrainedModel(
            self.architecture,
            method.held,
            adapters["r"] if adapters else 0,
            state_bytes=factory.state_bytes(dtype) - on_host,
            room_bytes=HOST_MOMENTS_ROOM_BYTES if on_host else 0.0,
        )

    @cached_property
    def planned(self) -> PlannedRun:
        is_padded = self.config.compute.compiles(self.fast_attention)
        return PlannedRun.of(self.config, self.cluster.num_ranks, self.num_records, is_padded=is_padded)

    @cached_property
    def work(self) -> Work:
        config = self.config
        return Work(
            self.model,
            self.sharding,
            self.cluster,
            flops_per_weight=config.tuning.method.flops_per_weight,
            recomputation=config.compute.activation_checkpointing,
            precision=config.precision.name,
            host_state_bytes=config.optim.factory.host_state_bytes(config.precision.weight_dtype),
            reduce_bytes=float(dtype_bytes(config.precision.reduce_dtype)),
        )

    @cached_property
    def step_seconds(self) -> float:
        """The mean one."""
        loads = self.planned.even_loads
        return sum(self.work.step_seconds(step) for step in loads) / len(loads)

    @property
    def checkpoint_bytes(self) -> int:
        """Of all ranks together: weights and moments of what is trained."""
        return checkpoint_bytes(self.config, self.model.num_trained)

    @property
    def num_parameters(self) -> int:
        """Of the whole model, adapters left out."""
        return num_parameters(self.architecture)
