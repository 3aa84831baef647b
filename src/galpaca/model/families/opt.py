"""OPT (Zhang et al. 2022), which GALACTICA is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from galpaca.errors import InputError
from galpaca.estimate.flops import Architecture
from galpaca.model.families.family import Family

if TYPE_CHECKING:
    from torch import nn
    from transformers import OPTConfig

    from galpaca.data.tokenizer import Tokenizer
    from galpaca.model.spec import ModelSpec

# A leftover of the framework that OPT was first trained in; it holds no weight.
_IGNORED = "decoder.version"


class Opt(Family):
    """Learned positions, layer norms, biases, a feed-forward block of two matrices; the head shares the embedding."""

    model_type = "opt"
    title = "OPT"
    class_name = "OPTForCausalLM"
    usual_dropout = 0.1
    half_dtype = "float16"
    ties_head = True
    layers = "model.decoder.layers"
    embedding = "model.decoder.embed_tokens.weight"
    positions = "embed_positions"
    linear_layers = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    config_defaults: ClassVar[Mapping[str, Any]] = {"tie_word_embeddings": True}

    def architecture(self, config: OPTConfig) -> Architecture:  # type: ignore[override]
        return Architecture(
            config.num_hidden_layers,
            config.hidden_size,
            config.ffn_dim,
            config.vocab_size,
            tied_head=config.tie_word_embeddings,
            num_positions=config.max_position_embeddings + 2,  # the first two are of no token
        )

    def random_config(self, spec: ModelSpec, tokenizer: Tokenizer) -> OPTConfig:
        from transformers import OPTConfig

        values: dict[str, Any] = {
            "hidden_size": spec.hidden_size,
            "word_embed_proj_dim": spec.hidden_size,
            "num_hidden_layers": spec.num_layers,
            "num_attention_heads": spec.num_heads,
            "ffn_dim": spec.ffn_size,
            "max_position_embeddings": spec.max_positions,
            "vocab_size": tokenizer.vocab_size,
            "activation_function": "gelu",  # GALACTICA's; OPTConfig's own default is relu
            "bos_token_id": tokenizer.hf.bos_token_id,
            "pad_token_id": tokenizer.pad_id,
            "eos_token_id": tokenizer.eos_id,
        }
        return OPTConfig(**values)

    def check_spec(self, spec: ModelSpec) -> None:
        if spec.path is None and spec.num_kv_heads not in (None, spec.num_heads):
            raise InputError(
                f"OPT models have as many key-value heads as heads ({spec.num_heads}), got {spec.num_kv_heads}",
                where="model.num_kv_heads",
                fix="model.num_kv_heads=null, or model.family=llama",
            )

    def configure(self, config: OPTConfig, spec: ModelSpec) -> None:  # type: ignore[override]
        config.dropout, config.attention_dropout = spec.dropout or 0.0, spec.attention_dropout

    def initial_std(self, config: OPTConfig) -> float:  # type: ignore[override]
        return float(config.init_std)

    def last_layer(self, layer: nn.Module, config: OPTConfig) -> nn.Module:  # type: ignore[override]
        from galpaca.model.families.layers import in_place_of
        from galpaca.model.families.opt_layers import TargetRowsLayer

        attention: Any = layer.self_attn
        return in_place_of(layer, TargetRowsLayer, config, attention.layer_idx)

    def halved(self) -> Mapping[type[nn.Module], type[nn.Module]]:
        from galpaca.model.families.opt_layers import HALVED

        return HALVED

    def is_norm(self, name: str) -> bool:
        return "layer_norm." in name

    def file_name(self, key: str) -> str | None:
        """Files of the bare decoder, whose names begin with ``decoder.``, are understood."""
        if key.endswith(_IGNORED):
            return None
        return f"model.{key}" if key.startswith("decoder.") else key


OPT = Opt()
