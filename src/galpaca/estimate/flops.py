"""Floating-point operations of training, and the share of a machine's peak that they use (MFU).

The count is the field's usual one (Chowdhery et al. 2022, PaLM, appendix B): 6 operations for each parameter of a
matrix product and each real token, and 12 x layers x width of all heads x context for attention. As usual, attention
is counted as if it were not causal and the head as if it ran on every token; recomputation and padding count for
nothing.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """The sizes of a decoder that decide its operations and its memory; by default it is of OPT's kind.

    Attributes:
        num_layers: decoder layers.
        hidden_size: width of the residual stream.
        ffn_size: width of the feed-forward block.
        vocab_size: rows of the embedding.
        attention_size: width of all heads' queries together; default: ``hidden_size``.
        kv_size: width of all heads' keys together; default: ``attention_size``.
        num_ffn_matrices: of a layer's feed-forward block: 3 where it is gated.
        tied_head: the head is the embedding's matrix.
        num_norm_vectors: parameters of a norm for each unit of the stream: 2 with a bias.
        num_biases: of the linear layers of a decoder layer; default: each has them.
        num_positions: rows of an embedding of positions.
    """

    num_layers: int
    hidden_size: int
    ffn_size: int
    vocab_size: int
    attention_size: int | None = None
    kv_size: int | None = None
    num_ffn_matrices: int = 2
    tied_head: bool = True
    num_norm_vectors: int = 2
    num_biases: int | None = None
    num_positions: int = 2050

    @property
    def heads_size(self) -> int:
        """Width of all heads together."""
        return self.attention_size or self.hidden_size

    @property
    def linear_sizes(self) -> list[tuple[int, int]]:
        """Width in and out of each linear layer of a decoder layer."""
        hidden, heads, ffn = self.hidden_size, self.heads_size, self.ffn_size
        kv = self.kv_size or heads
        wide = [(hidden, ffn)] * (self.num_ffn_matrices - 1)
        return [(hidden, heads), (hidden, kv), (hidden, kv), (heads, hidden), *wide, (ffn, hidden)]

    @property
    def matmul_parameters(self) -> int:
        """Weights of matrix products: all linear layers, and the head."""
        layer = sum(width * out for width, out in self.linear_sizes)
        return self.num_layers * layer + self.vocab_size * self.hidden_size


@dataclass(frozen=True)
class Tuned:
    """What of a model is trained, as far as it decides operations.

    Attributes:
        flops_per_weight: of the model's own weights, a token: 6, or 4 where they are frozen and have no gradient.
        num_adapter_weights: trained beside them, at 6 each.
    """

    flops_per_weight: int = 6
    num_adapter_weights: int = 0


def step_flops(architecture: Architecture, num_tokens: int, num_attention_pairs: int, tuned: Tuned = Tuned()) -> float:
    """Operations of forward and backward over some examples.

    Args:
        num_tokens: tokens of all examples together, without padding.
        num_attention_pairs: sum over examples of their squared length; divided by ``num_tokens`` it is the mean
            context that a token has.
    """
    weights = tuned.flops_per_weight * architecture.matmul_parameters + 6 * tuned.num_adapter_weights
    return float(weights * num_tokens + 12 * architecture.num_layers * architecture.heads_size * num_attention_pairs)
