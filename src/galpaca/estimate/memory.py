"""Memory of a training step on one GPU, by part: arithmetic from sizes, not measured on any card yet.

What a layer keeps for backward was counted at the layer shapes of GALACTICA 6.7B on tensors without storage, with
half-precision products and a float32 residual stream: bytes for each token and each unit of the hidden size.
"""

from dataclasses import dataclass, fields

from galpaca.estimate.flops import Architecture

# Of a layer with a feed-forward block four times as wide as the stream, by ``compute.activation_checkpointing``.
# Autocast's copies of weights, which are kept without recomputation only, are counted apart.
KEPT_BYTES = {"none": 36.0, "selective": 22.0, "full": 4.0}
# Of its six adapters' inputs besides: a copy in 16 bits after dropout, and dropout's mask of a byte.
_ADAPTER_BYTES = 27.0
# Logits in 16 bits, in float32, their softmax, and the gradients of both.
_LOGIT_BYTES = 16
# Alpaca's share of tokens that carry loss; only their rows reach the head.
TARGET_SHARE = 0.55
# CUDA's context and the libraries' workspaces; and what the allocator cannot use of what comes and goes with each step.
_CONTEXT_BYTES = 1 << 30
_FRAGMENTATION = 0.1
# Of moments in host memory, what is on the card: three pieces of 2 ** 25 values at a time, two float32 moments of each.
HOST_MOMENTS_ROOM_BYTES = 3 * 2**25 * 2 * 4.0


@dataclass(frozen=True)
class Held:
    """How weights are held, in bytes each.

    Attributes:
        linear: of the linear layers' matrices.
        other: of embeddings, head, biases and norms.
        trains_all: they are trained themselves; otherwise only what is beside them.
        scratch: for a moment, of the largest matrix: a cast or dequantized copy.
    """

    linear: float = 4.0
    other: float = 4.0
    trains_all: bool = True
    scratch: float = 2.0


@dataclass(frozen=True)
class MemoryParts:
    """Bytes of a GPU that a step takes at its fullest, by what they are for."""

    weights: float
    gradients: float
    optimizer_state: float
    activations: float
    logits: float
    scratch: float
    context: float

    @property
    def total(self) -> float:
        return sum(float(getattr(self, item.name)) for item in fields(self))


def num_parameters(architecture: Architecture) -> int:
    """Of a model with its biases and norms, a tied head once."""
    hidden, norm = architecture.hidden_size, architecture.num_norm_vectors * architecture.hidden_size
    biases = architecture.num_biases
    if biases is None:
        biases = sum(out for _, out in architecture.linear_sizes)
    embeddings = (1 if architecture.tied_head else 2) * architecture.vocab_size + architecture.num_positions
    return embeddings * hidden + num_linear(architecture) + architecture.num_layers * (biases + 2 * norm) + norm


def num_linear(architecture: Architecture) -> int:
    """Values of the linear layers' matrices."""
    return architecture.matmul_parameters - architecture.vocab_size * architecture.hidden_size


def num_adapter_weights(architecture: Architecture, rank: int) -> int:
    """Values of adapters on all linear layers of each block."""
    return architecture.num_layers * rank * sum(width + out for width, out in architecture.linear_sizes)


def step_memory(
    architecture: Architecture,
    held: Held,
    *,
    num_tokens: int,
    recomputation: str = "full",
    rank: int = 0,
    state_bytes: float = 8.0,
) -> MemoryParts:
    """Memory of one GPU that holds a whole model.

    Args:
        num_tokens: of a micro-batch.
        recomputation: ``compute.activation_checkpointing``.
        rank: of adapters on all linear layers; 0 for none.
        state_bytes: of the optimizer, a trained parameter: 8 for Adam's moments in float32.

    Raises:
        ValueError: layers of another kind than OPT's, whose activations nobody has counted.
    """
    if architecture.num_ffn_matrices != 2:
        raise ValueError("activations were counted for layers of OPT's kind only")
    hidden, linear = architecture.hidden_size, num_linear(architecture)
    total, adapters = num_parameters(architecture), num_adapter_weights(architecture, rank)
    trained = (total if held.trains_all else 0) + adapters
    each = num_tokens * hidden
    of_adapters = _ADAPTER_BYTES if rank else 0.0
    kept = KEPT_BYTES[recomputation] + (of_adapters if recomputation == "none" else 0.0)
    # Backward computes one layer's again, and holds all of it then.
    again = 0.0 if recomputation == "none" else KEPT_BYTES["none"] + of_adapters
    # Each weight's cast copy is kept from its layer's forward, or the second one, until its backward.
    casts = held.scratch * linear if held.trains_all else 0.0
    casts /= 1 if recomputation == "none" else architecture.num_layers
    largest = hidden * architecture.ffn_size
    fixed = held.linear * linear + held.other * (total - linear) + 4.0 * adapters
    activations = each * (architecture.num_layers * kept + again) + casts
    logits = _LOGIT_BYTES * TARGET_SHARE * num_tokens * architecture.vocab_size
    scratch = held.scratch * largest
    return MemoryParts(
        weights=fixed,
        gradients=4.0 * trained,
        optimizer_state=state_bytes * trained,
        activations=activations,
        logits=logits,
        scratch=scratch,
        context=_CONTEXT_BYTES + _FRAGMENTATION * (activations + logits + scratch),
    )
