"""Layers of OPT as training computes them.

Only rows whose next token carries loss reach the head. What follows attention works on each row alone, so in the last
layer it runs on those rows only: with half of the tokens in prompts, a third of that layer's work.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import dropout
from transformers.models.opt.modeling_opt import OPTDecoderLayer, OPTLearnedPositionalEmbedding

from galpaca.model.half_residual import HalfEmbedding


class TargetRowsLayer(OPTDecoderLayer):
    """An ``OPTDecoderLayer`` with the same parameters that returns only the requested rows."""

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *, target_rows: Tensor, **kwargs: Any
    ) -> Tensor:
        """(1, T, C) to (1, K, C).

        Args:
            hidden_states: (1, T, C).
            attention_mask: passed on to the attention.
            target_rows: (K,) rows to return.
        """
        before = self.do_layer_norm_before
        hidden = self.self_attn_layer_norm(hidden_states) if before else hidden_states
        attended, _ = self.self_attn(hidden_states=hidden, attention_mask=attention_mask, **kwargs)
        residual = hidden_states[:, target_rows]
        hidden = residual + dropout(attended[:, target_rows], self.dropout, self.training)
        if not before:
            hidden = self.self_attn_layer_norm(hidden)
        residual = hidden
        hidden = self.final_layer_norm(hidden) if before else hidden
        hidden = self.fc2(self.activation_fn(self.fc1(hidden)))
        hidden = residual + dropout(hidden, self.dropout, self.training)
        return hidden if before else self.final_layer_norm(hidden)


class HalfPositions(OPTLearnedPositionalEmbedding, HalfEmbedding):  # type: ignore[misc]
    """Embeddings of positions from 16-bit weights, as those of tokens."""


HALVED: dict[type[nn.Module], type[nn.Module]] = {OPTLearnedPositionalEmbedding: HalfPositions}
