"""GPT-NeoX (Black et al. 2022), which Pythia is, as a user would add it: one file outside of the project."""

from typing import Any

import torch
from torch import Tensor
from transformers import GPTNeoXConfig
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXLayer, GPTNeoXRotaryEmbedding

from galpaca.data.tokenizer import Tokenizer
from galpaca.estimate.flops import Architecture
from galpaca.model.families.family import Family
from galpaca.model.families.layers import in_place_of
from galpaca.model.spec import ModelSpec


class TargetRowsLayer(GPTNeoXLayer):
    """A layer with the same parameters that returns only the requested rows."""

    def forward(self, hidden_states: Tensor, *, target_rows: Tensor, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """(1, T, C) to (1, K, C)."""
        normed = self.input_layernorm(hidden_states)
        attended, _ = self.attention(normed, attention_mask=None, **kwargs)
        attended, hidden = self.post_attention_dropout(attended[:, target_rows]), hidden_states[:, target_rows]
        before = hidden if self.use_parallel_residual else hidden + attended
        return self.post_mlp_dropout(self.mlp(self.post_attention_layernorm(before))) + attended + hidden


class NeoX(Family):
    """Rotary positions on a part of each head, one matrix for query, key and value, a free head."""

    model_type = "gpt_neox"
    title = "GPT-NeoX"
    class_name = "GPTNeoXForCausalLM"
    layers = "gpt_neox.layers"
    embedding = "gpt_neox.embed_in.weight"
    linear_layers = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
    layer_inputs = ("position_embeddings",)

    def architecture(self, config: Any) -> Architecture:
        hidden = config.hidden_size
        sizes = (config.num_hidden_layers, hidden, config.intermediate_size, config.vocab_size)
        return Architecture(*sizes, tied_head=config.tie_word_embeddings, num_positions=0)

    def random_config(self, spec: ModelSpec, tokenizer: Tokenizer) -> GPTNeoXConfig:
        values: dict[str, Any] = {
            "hidden_size": spec.hidden_size,
            "num_hidden_layers": spec.num_layers,
            "num_attention_heads": spec.num_heads,
            "intermediate_size": spec.ffn_size,
            "max_position_embeddings": spec.max_positions,
            "vocab_size": tokenizer.vocab_size,
            "bos_token_id": tokenizer.hf.bos_token_id,
            "pad_token_id": tokenizer.pad_id,
            "eos_token_id": tokenizer.eos_id,
        }
        return GPTNeoXConfig(**values)

    def check_spec(self, spec: ModelSpec) -> None:
        """All that a spec can ask for is there."""

    def configure(self, config: Any, spec: ModelSpec) -> None:
        config.hidden_dropout, config.attention_dropout = spec.dropout, spec.attention_dropout

    def build(self, config: Any, dtype: torch.dtype) -> Any:
        model: Any = super().build(config, dtype)
        model.gpt_neox.rotary_emb = GPTNeoXRotaryEmbedding(config)
        return model

    def last_layer(self, layer: Any, config: Any) -> TargetRowsLayer:
        return in_place_of(layer, TargetRowsLayer, config, layer.attention.layer_idx)

    def is_norm(self, name: str) -> bool:
        return "norm." in name

    def file_name(self, key: str) -> str | None:
        """Early files hold masks and frequencies, which are no weights; all files have another name for the head."""
        if key.endswith((".attention.bias", ".masked_bias", ".inv_freq")):
            return None
        return self.head if key == "embed_out.weight" else key
