"""Memory of a training step on one GPU, by part: what is held by arithmetic, what comes and goes by counted timelines.

Nothing of it was measured on a card yet. What CUDA itself takes and what its allocator cannot use are assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from galpaca.errors import InputError
from galpaca.estimate.flops import Architecture
from galpaca.estimate.sharding import WHOLE_ON_ONE, Sharding
from galpaca.estimate.timeline import Kind, Sizes, num_bytes, timeline_of

# Alpaca's share of tokens that carry loss; only their rows reach the head.
TARGET_SHARE = 0.55
# CUDA's context and the libraries' workspaces; with several ranks also the buffers of their communicator.
_CONTEXT_BYTES, _COMMUNICATOR_BYTES = 1 << 30, 0.75 * (1 << 30)
# Of what comes and goes with each step, what the allocator cannot use.
_FRAGMENTATION = 0.1
# Of moments in host memory, what is on the card: three pieces of 2 ** 25 values at a time, two float32 moments of each.
HOST_MOMENTS_ROOM_BYTES = 3 * 2**25 * 2 * 4.0
_GRADIENT_BYTES = 4.0
_LOGITS = "targets*vocab"


@dataclass(frozen=True)
class Held:
    """How weights are held, in bytes each.

    Attributes:
        linear: of the linear layers' matrices.
        embedding: of the embedding's and the head's; positions, biases and norms are float32.
        trains_all: they are trained themselves; otherwise only what is beside them.
        scratch: for a moment, of the largest matrix: a cast or dequantized copy.
    """

    linear: float = 4.0
    embedding: float = 4.0
    trains_all: bool = True
    scratch: float = 2.0


def num_parameters(architecture: Architecture) -> int:
    """Of a model with its biases and norms, a tied head once."""
    norm = architecture.num_norm_vectors * architecture.hidden_size
    layers = architecture.num_layers * layer_parameters(architecture)
    embeddings = (1 if architecture.tied_head else 2) * architecture.vocab_size + architecture.num_positions
    return embeddings * architecture.hidden_size + layers + norm


def layer_parameters(architecture: Architecture) -> int:
    """Of one decoder layer."""
    matrices = sum(width * out for width, out in architecture.linear_sizes)
    biases = architecture.num_biases
    if biases is None:
        biases = sum(out for _, out in architecture.linear_sizes)
    return matrices + biases + 2 * architecture.num_norm_vectors * architecture.hidden_size


def num_linear(architecture: Architecture) -> int:
    """Values of the linear layers' matrices."""
    return architecture.matmul_parameters - architecture.vocab_size * architecture.hidden_size


def num_adapter_weights(architecture: Architecture, rank: int) -> int:
    """Values of adapters on all linear layers of each block."""
    return architecture.num_layers * rank * sum(width + out for width, out in architecture.linear_sizes)


@dataclass(frozen=True)
class TrainedModel:
    """A model, and how it is held in training.

    Attributes:
        rank: of adapters on all linear layers; 0 for none.
        state_bytes: of the optimizer, a trained parameter on the card: 8 for Adam's moments in float32.
        room_bytes: of the optimizer on the card besides, whatever the model.
    """

    architecture: Architecture
    held: Held = Held()
    rank: int = 0
    state_bytes: float = 8.0
    room_bytes: float = 0.0

    @property
    def num_adapters(self) -> int:
        return num_adapter_weights(self.architecture, self.rank)

    @property
    def num_trained(self) -> int:
        return self.num_adapters + (num_parameters(self.architecture) if self.held.trains_all else 0)

    @property
    def weight_bytes(self) -> float:
        one = self.architecture
        linear, products = num_linear(one), (1 if one.tied_head else 2) * one.vocab_size * one.hidden_size
        others = num_parameters(one) - linear - products + self.num_adapters
        return self.held.linear * linear + self.held.embedding * products + 4.0 * others

    def of_layers(self, num_layers: int) -> TrainedModel:
        """The same with another number of layers."""
        return replace(self, architecture=replace(self.architecture, num_layers=num_layers))

    def sizes(self, num_tokens: int, num_targets: int, num_shards: int) -> Sizes:
        """What timelines know by name, for a micro-batch."""
        one, none = self.of_layers(1), self.of_layers(0)
        architecture = self.architecture
        return {
            "tokens": num_tokens,
            "targets": num_targets,
            "hidden": architecture.hidden_size,
            "kv": architecture.kv_size or architecture.heads_size,
            "ffn": architecture.ffn_size,
            "vocab": architecture.vocab_size,
            "positions": architecture.num_positions,
            "rank": self.rank,
            "shards": num_shards,
            "layer": layer_parameters(architecture) + one.num_adapters,
            "root": num_parameters(none.architecture),
            "layer_bytes": one.weight_bytes - none.weight_bytes,
            "root_bytes": none.weight_bytes,
            "trained": self.num_trained,
        }


@dataclass(frozen=True)
class Fullest:
    """The micro-batch that takes most.

    Attributes:
        is_only: of its step; otherwise others have left gradients.
    """

    num_tokens: int
    num_targets: int
    is_only: bool = False

    @classmethod
    def of(cls, num_tokens: int) -> Fullest:
        """One of that many tokens of Alpaca's records."""
        return cls(num_tokens, round(TARGET_SHARE * num_tokens))


@dataclass(frozen=True)
class MemoryParts:
    """Bytes of a GPU at a step's fullest moment, by what they are for.

    Attributes:
        copies: of weights, gathered, cast or dequantized; and gradients on their way to where they stay.
        context: of CUDA and the communicator.
        fragmentation: what the allocator cannot use.
    """

    weights: float
    gradients: float
    optimizer_state: float
    activations: float
    logits: float
    copies: float
    context: float = 0.0
    fragmentation: float = 0.0

    @property
    def allocated(self) -> float:
        """What torch counts as allocated."""
        return self.total - self.context - self.fragmentation

    @property
    def total(self) -> float:
        return sum(float(getattr(self, item.name)) for item in fields(self))


class HeldBytes(NamedTuple):
    """Bytes that are there all the time."""

    weights: float
    gradients: float
    optimizer_state: float


def step_memory(kind: Kind, model: TrainedModel, fullest: Fullest, sharding: Sharding = WHOLE_ON_ONE) -> MemoryParts:
    """Memory of one GPU.

    Args:
        kind: way to train.
        fullest: micro-batch.
        sharding: how ranks share the model.

    Raises:
        InputError: nobody has counted this way to train.
    """
    timeline = timeline_of(kind, is_only=fullest.is_only)
    if timeline is None:
        raise InputError(
            f"memory of this way to train was not counted: {kind.name}",
            where="galpaca estimate",
            fix="add --trace, which counts it (minutes)",
        )
    shards = sharding.num_shards
    held = held_bytes(model, shards, is_only=fullest.is_only)
    sizes = model.sizes(fullest.num_tokens, fullest.num_targets, shards)
    terms = timeline.peak(sizes, model.architecture.num_layers)
    logits = num_bytes({name: each for name, each in terms.items() if name == _LOGITS}, sizes)
    of_tokens = {name: each for name, each in terms.items() if {"tokens", "targets"} & set(name.split("*"))}
    activations = num_bytes(of_tokens, sizes) - logits
    copies = num_bytes(terms, sizes) - activations - logits + num_bytes(timeline.carried, sizes)
    return with_overheads(MemoryParts(*held, activations, logits, copies), sharding)


def with_overheads(allocated: MemoryParts, sharding: Sharding) -> MemoryParts:
    """What torch allocates, with what CUDA, the communicator and the allocator take besides."""
    comes_and_goes = allocated.activations + allocated.logits + allocated.copies
    return replace(
        allocated,
        context=_CONTEXT_BYTES + _COMMUNICATOR_BYTES * (sharding.num_ranks > 1),
        fragmentation=_FRAGMENTATION * comes_and_goes,
    )


def held_bytes(model: TrainedModel, num_shards: int, *, is_only: bool) -> HeldBytes:
    """What is there all the time, and in a step's later micro-batches also the gradients of earlier ones."""
    gradients = 0.0 if is_only else _GRADIENT_BYTES * model.num_trained
    state = model.state_bytes * model.num_trained / num_shards + model.room_bytes
    return HeldBytes(model.weight_bytes / num_shards, gradients / num_shards, state)
