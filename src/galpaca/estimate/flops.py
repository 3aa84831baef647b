"""Floating-point operations of training, and the share of a machine's peak that they use (MFU).

The count is the field's usual one (Chowdhery et al. 2022, PaLM, appendix B): 6 operations for each parameter of a
matrix product and each real token, and 12 x layers x hidden x context for attention. As usual, attention is counted as
if it were not causal and the head as if it ran on every token; recomputation and padding count for nothing.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """The sizes of a decoder of OPT's kind that decide its operations."""

    num_layers: int
    hidden_size: int
    ffn_size: int
    vocab_size: int

    @property
    def matmul_parameters(self) -> int:
        """Weights of matrix products: four projections and two feed-forward matrices a layer, and the head."""
        layer = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.ffn_size
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
    return float(weights * num_tokens + 12 * architecture.num_layers * architecture.hidden_size * num_attention_pairs)
