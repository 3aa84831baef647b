"""How long a step takes, from sizes and data sheets: nothing of it was measured on a card yet.

A micro-batch takes what its products need at a share of the card's peak, what is moved in the card's memory besides,
and what of the communication these do not hide. All ranks wait for the slowest in each micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from galpaca.estimate.flops import Architecture
from galpaca.estimate.gpus import Gpu
from galpaca.estimate.memory import TrainedModel, num_linear, num_parameters
from galpaca.estimate.sharding import Sharding

# Large products reach this share of a card's stated peak, those of a narrow model less; and of few tokens less again:
# half at as many as this (Narayanan et al. 2021, arXiv 2104.04473, and others' figures).
_PRODUCT_SHARE, _NARROW_HIDDEN, _NARROW, _HALF_SPEED_TOKENS = 0.68, 2_048, 0.85, 300
# Of a stated bandwidth, of memory and of links; what kernels leave of the time between them.
_BANDWIDTH, _LINKS, _GAPS = 0.9, 0.75, 0.05
# Share of the products' time that gathers and reductions can hide behind; and what they move through a card's own
# memory for each parameter and micro-batch: two gathered copies in 16 bits, a gradient in 32 written and read.
_OVERLAP, _THROUGH_MEMORY_BYTES = 0.6, 2 * 2.0 + 2 * 4.0
# Seconds that a collective takes however little it sends: within a node, and for each rank beyond.
_LATENCY_SECONDS, _RANK_LATENCY_SECONDS = 30e-6, 8e-6
# Bytes by what they are proportional to, counted on 6.7B's step by ``bench.bytes``: of each token, layer and unit of
# the stream; of each parameter's cast, accumulated gradient and update.
_ELEMENTWISE_BYTES, _CAST_BYTES, _ACCUMULATION_BYTES, _UPDATE_BYTES = 162.0, 12.0, 12.5, 24.0
# Recomputing what is cheap moves the forward's bytes once more; full recomputation also adds a forward's operations.
_RECOMPUTED_BYTES = {"none": 1.0, "selective": 1.3, "full": 1.3}
_RECOMPUTED_FLOPS = {"none": 0, "selective": 0, "full": 2}
_HOST_GB_PER_SECOND = 20.0


@dataclass(frozen=True)
class Cluster:
    """Cards and what connects them.

    Attributes:
        devices: cards of a node.
        node_gb_per_second: 10^9 bytes per second between nodes, of each, in one direction.
    """

    gpu: Gpu
    devices: int = 1
    num_nodes: int = 1
    node_gb_per_second: float = 22.0

    @property
    def num_ranks(self) -> int:
        return self.devices * self.num_nodes

    @property
    def link_bytes_per_second(self) -> float:
        """Of a ring over all cards, at its slowest place."""
        within = self.gpu.link_gb_per_second
        return 1e9 * _LINKS * (within if self.num_nodes == 1 else min(within, self.node_gb_per_second))


@dataclass(frozen=True)
class Load:
    """A rank's part of a micro-batch.

    Attributes:
        num_tokens: padding included.
        num_pairs: sum over its examples of their squared length.
    """

    num_tokens: int
    num_targets: int
    num_pairs: int


@dataclass(frozen=True)
class Work:
    """A model in training, as far as it decides its speed.

    Attributes:
        flops_per_weight: of the model's own weights, a token: 6, or 4 where they are frozen.
        recomputation: ``compute.activation_checkpointing``.
        precision: ``16-mixed``, ``bf16-mixed`` or ``32-true``.
        host_state_bytes: of the optimizer, a trained parameter, in host memory.
        reduce_bytes: of a gradient as sharded ranks send it.
    """

    model: TrainedModel
    sharding: Sharding
    cluster: Cluster
    flops_per_weight: int = 6
    recomputation: str = "none"
    precision: str = "bf16-mixed"
    host_state_bytes: float = 0.0
    reduce_bytes: float = 4.0

    @property
    def _architecture(self) -> Architecture:
        return self.model.architecture

    def flops(self, load: Load) -> float:
        """Operations that are computed, recomputation with them; the head runs on targets only."""
        one, adapters = self._architecture, self.model.num_adapters
        again = _RECOMPUTED_FLOPS[self.recomputation]
        layers = (self.flops_per_weight + again) * num_linear(one) + (6 + again) * adapters
        head = self.flops_per_weight * one.vocab_size * one.hidden_size
        # Causal attention computes half of the pairs.
        attention = (6 + again) * one.num_layers * one.heads_size * load.num_pairs
        return float(layers * load.num_tokens + head * load.num_targets + attention)

    def micro_batch_seconds(self, load: Load, *, is_first: bool) -> float:
        """Products and moved bytes of one rank, without communication."""
        peak = self.cluster.gpu.flops(self.precision) or self.cluster.gpu.flops("16-mixed") or 1.0
        narrow = _NARROW if self._architecture.hidden_size <= _NARROW_HIDDEN else 1.0
        tokens = max(1, load.num_tokens)
        share = _PRODUCT_SHARE * narrow * tokens / (tokens + _HALF_SPEED_TOKENS)
        return self.flops(load) / (peak * share) + self._moved(load, is_first) / self._memory_bytes_per_second

    @property
    def _memory_bytes_per_second(self) -> float:
        return self.cluster.gpu.gb_per_second * 1e9 * _BANDWIDTH

    def _moved(self, load: Load, is_first: bool) -> float:
        one, held = self._architecture, self.model.held
        each = load.num_tokens * one.num_layers * one.hidden_size
        moved = _ELEMENTWISE_BYTES * _RECOMPUTED_BYTES[self.recomputation] * each
        trained, shards = self.model.num_trained, self.sharding.num_shards
        moved += 0.0 if is_first else _ACCUMULATION_BYTES * trained / shards
        if not held.trains_all:
            # A frozen base in 16 bits needs no cast; in 4 bits its matrices are made again for each product.
            again = 3 if self.recomputation == "full" else 2
            return moved + max(2.0, held.scratch) * num_linear(one) * again
        if self.sharding.gathers:
            return moved + 2 * 6.0 * trained / shards + (6.0 + _THROUGH_MEMORY_BYTES) * trained
        return moved + _CAST_BYTES * trained

    def communication_seconds(self, *, is_last: bool) -> float:
        """Of one micro-batch."""
        cluster, sharding = self.cluster, self.sharding
        if cluster.num_ranks == 1:
            return 0.0
        seconds = 0.0
        if sharding.gathers:
            # Two gathers and a reduction; of what is frozen, none of that.
            gathers = 1 if sharding.keeps_gathered else 2
            reduced = self._ring_seconds(self.reduce_bytes * self.model.num_trained)
            seconds += gathers * self.gather_seconds() + reduced
        if sharding.num_copies > 1 and (is_last or sharding.sums_each_micro_batch):
            each = self.reduce_bytes if sharding.gathers else 4.0
            summed = 2 * each * self.model.num_trained / sharding.num_shards
            others = (sharding.num_copies - 1) / sharding.num_copies
            # Each card of a node sends its shard's gradients at the same time as the others theirs.
            share = min(cluster.devices, sharding.num_shards)
            seconds += summed * others * share / cluster.link_bytes_per_second
        return seconds

    def gather_seconds(self) -> float:
        """Of all weights once, in the order of the layers; none where each rank holds them."""
        if not self.sharding.gathers or self.sharding.num_shards == 1:
            return 0.0
        values = num_parameters(self._architecture)
        return self._ring_seconds(2.0 * values if self.model.held.trains_all else self.model.weight_bytes)

    def _ring_seconds(self, num_bytes: float) -> float:
        """Of what goes through a ring of shards, a collective for each layer."""
        shards = self.sharding.num_shards
        is_within = shards <= self.cluster.devices
        within = self.cluster.gpu.link_gb_per_second * 1e9 * _LINKS
        ring = within if is_within else self.cluster.link_bytes_per_second
        return num_bytes * (shards - 1) / shards / ring + self._architecture.num_layers * self._latency(shards)

    def _latency(self, num_ranks: int) -> float:
        beyond = max(0, num_ranks - self.cluster.devices)
        return _LATENCY_SECONDS + _RANK_LATENCY_SECONDS * beyond

    def update_seconds(self) -> float:
        held = self.model.num_trained / self.sharding.num_shards
        moved = (_UPDATE_BYTES + self.model.state_bytes) * held / self._memory_bytes_per_second
        return moved + 2 * self.host_state_bytes * held / (_HOST_GB_PER_SECOND * 1e9)

    def step_seconds(self, micro_batches: Iterable[Iterable[Load]]) -> float:
        """Of an optimizer step.

        Args:
            micro_batches: of each, what every rank has of it.
        """
        loads = [list(ranks) for ranks in micro_batches]
        total = 0.0
        for index, ranks in enumerate(loads):
            computed = max(self.micro_batch_seconds(load, is_first=index == 0) for load in ranks)
            sent = self.communication_seconds(is_last=index == len(loads) - 1)
            total += computed + max(0.0, sent - _OVERLAP * computed)
        return (1 + _GAPS) * total + self.update_seconds()
