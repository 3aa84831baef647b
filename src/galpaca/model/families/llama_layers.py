"""Layers of Llama as training computes them."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm


class TargetRowsLayer(LlamaDecoderLayer):
    """A ``LlamaDecoderLayer`` with the same parameters that returns only the requested rows.

    Only rows whose next token carries loss reach the head, and what follows attention works on each row alone.
    """

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *, target_rows: Tensor, **kwargs: Any
    ) -> Tensor:
        """(1, T, C) to (1, K, C).

        Args:
            hidden_states: (1, T, C).
            attention_mask: passed on to the attention.
            target_rows: (K,) rows to return.
        """
        normed = self.input_layernorm(hidden_states)
        attended, _ = self.self_attn(hidden_states=normed, attention_mask=attention_mask, **kwargs)
        hidden = hidden_states[:, target_rows] + attended[:, target_rows]
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class HalfRmsNorm(LlamaRMSNorm):
    """An RMS norm from weights in its input's dtype; the mean of squares is float32, as it is without."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        wide = hidden_states.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight.to(hidden_states.dtype) * scaled.to(hidden_states.dtype)


HALVED: dict[type[nn.Module], type[nn.Module]] = {LlamaRMSNorm: HalfRmsNorm}
