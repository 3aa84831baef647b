"""Llama (Touvron et al. 2023, Grattafiori et al. 2024), and all that is published in its form, such as SmolLM2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from galpaca.errors import InputError
from galpaca.estimate.flops import Architecture
from galpaca.model.families.family import Family

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import LlamaConfig, LlamaForCausalLM

    from galpaca.data.tokenizer import Tokenizer
    from galpaca.model.spec import ModelSpec

# Others depend on the longest text at hand, so that an example would not be the same among others as alone.
_ROTATIONS = ("default", "linear", "llama3", "yarn")
# Of a bare model's files.
_PARTS = ("layers.", "embed_tokens.", "norm.")


def _num_biases(config: LlamaConfig) -> int:
    """Of a layer: some have them in attention, or in the feed-forward block."""
    head_size = config.head_dim or config.hidden_size // config.num_attention_heads
    kv_heads = config.num_key_value_heads or config.num_attention_heads
    of_attention = (config.num_attention_heads + 2 * kv_heads) * head_size + config.hidden_size
    of_ffn = 2 * config.intermediate_size + config.hidden_size
    return of_attention * bool(config.attention_bias) + of_ffn * bool(config.mlp_bias)


class Llama(Family):
    """Rotary positions, RMS norms, grouped key-value heads, a gated feed-forward block; a tied or a free head."""

    model_type = "llama"
    title = "Llama"
    class_name = "LlamaForCausalLM"
    linear_layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    layer_inputs = ("position_embeddings",)
    config_defaults: ClassVar[Mapping[str, Any]] = {
        "head_dim": None,
        "num_key_value_heads": None,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
    }

    def architecture(self, config: LlamaConfig) -> Architecture:  # type: ignore[override]
        head_size = config.head_dim or config.hidden_size // config.num_attention_heads
        kv_heads = config.num_key_value_heads or config.num_attention_heads
        return Architecture(
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size,
            config.vocab_size,
            attention_size=config.num_attention_heads * head_size,
            kv_size=kv_heads * head_size,
            num_ffn_matrices=3,
            tied_head=config.tie_word_embeddings,
            num_norm_vectors=1,
            num_biases=_num_biases(config),
            num_positions=0,
        )

    def random_config(self, spec: ModelSpec, tokenizer: Tokenizer) -> LlamaConfig:
        from transformers import LlamaConfig

        values: dict[str, Any] = {
            "hidden_size": spec.hidden_size,
            "num_hidden_layers": spec.num_layers,
            "num_attention_heads": spec.num_heads,
            "num_key_value_heads": spec.num_kv_heads or spec.num_heads,
            "intermediate_size": spec.ffn_size,
            "max_position_embeddings": spec.max_positions,
            "vocab_size": tokenizer.vocab_size,
            "tie_word_embeddings": True,  # as small models have it
            "bos_token_id": tokenizer.hf.bos_token_id,
            "pad_token_id": tokenizer.pad_id,
            "eos_token_id": tokenizer.eos_id,
        }
        return LlamaConfig(**values)

    def check(self, config: LlamaConfig, where: object) -> None:  # type: ignore[override]
        kind = (config.rope_parameters or {}).get("rope_type", "default")
        if kind not in _ROTATIONS:
            raise InputError(
                f"rotary positions of the kind {kind!r} are not supported",
                where=where,
                why="some depend on the longest example at hand, so that packed examples would change each other",
                fix=f"a model with one of these: {', '.join(_ROTATIONS)}",
            )

    def build(self, config: LlamaConfig, dtype: torch.dtype) -> LlamaForCausalLM:  # type: ignore[override]
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        model: Any = super().build(config, dtype)
        model.model.rotary_emb = LlamaRotaryEmbedding(config)  # its frequencies are in no file of weights
        return model

    def last_layer(self, layer: nn.Module, config: LlamaConfig) -> nn.Module:  # type: ignore[override]
        from galpaca.model.families.layers import in_place_of
        from galpaca.model.families.llama_layers import TargetRowsLayer

        attention: Any = layer.self_attn
        return in_place_of(layer, TargetRowsLayer, config, attention.layer_idx)

    def halved(self) -> Mapping[type[nn.Module], type[nn.Module]]:
        from galpaca.model.families.llama_layers import HALVED

        return HALVED

    def is_norm(self, name: str) -> bool:
        return "norm." in name

    def file_name(self, key: str) -> str | None:
        """Early files hold frequencies, which are no weights; those of a bare model have shorter names."""
        if key.endswith(".rotary_emb.inv_freq"):
            return None
        return f"model.{key}" if key.startswith(_PARTS) else key

    def saved(self, content: dict[str, Any]) -> dict[str, Any]:
        """transformers 4 knows nothing of ``rope_parameters``, and would rotate by its own default."""
        rotation = dict(content.get("rope_parameters") or {})
        theta = rotation.pop("rope_theta", None)
        former = {} if theta is None else {"rope_theta": theta}
        if rotation.get("rope_type", "default") != "default":
            former["rope_scaling"] = rotation
        return {**content, **former}
