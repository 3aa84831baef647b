"""Tiny models of every family, for the suites that all families must pass."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, OPTConfig, PreTrainedConfig, PreTrainedModel

from galpaca.model.build import build_model
from galpaca.model.families.family import Family
from galpaca.model.families.llama import Llama
from galpaca.model.families.opt import OPT
from galpaca.model.parts import materialize_all


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model, in terms that all families have."""

    vocabulary: int = 101
    hidden: int = 32
    ffn: int = 64
    layers: int = 2
    heads: int = 4
    positions: int = 64


@dataclass(frozen=True, eq=False)
class Tiny:
    """A kind of model.

    Attributes:
        name: as tests show it.
        family: of the model.
        special: what differs from the family's plain form, in its configuration.
        overrides: of ``train.py``, for random weights of this kind.
        random: the same, for dropout of what the family has.
    """

    name: str
    family: Family
    special: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    random: tuple[str, ...] = ()

    def config(self, sizes: Sizes) -> PreTrainedConfig:
        return _CONFIGS[self.family.model_type](sizes, self.special)

    def model(self, sizes: Sizes, *, std: float, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """One of random weights; biases and norms too, which begin at 0 and 1, where mistakes would not show."""
        model = build_model(self.config(sizes), self.family)
        materialize_all(model, torch.device("cpu"))
        model.to(dtype)  # type: ignore[arg-type]  # its decorator lost `self`
        torch.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=std)
        return model


def _opt(sizes: Sizes, special: Mapping[str, Any]) -> OPTConfig:
    return OPTConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        word_embed_proj_dim=sizes.hidden,
        ffn_dim=sizes.ffn,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=sizes.positions,
        activation_function="gelu",
        **{"dropout": 0.0, "attention_dropout": 0.0, **special},
    )


def _llama(sizes: Sizes, special: Mapping[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.ffn,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=sizes.positions,
        pad_token_id=1,
        **{"num_key_value_heads": sizes.heads // 2, "tie_word_embeddings": True, **special},
    )


_CONFIGS = {"opt": _opt, "llama": _llama}
# Positions that are stretched, as those of Llama 3.1 and later.
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}

PLAIN_OPT = Tiny("opt", OPT, overrides=("model=tiny",), random=("model.dropout=0.3",))
PLAIN_LLAMA = Tiny(
    "llama",
    Llama(),
    overrides=("model=tiny_llama",),
    random=("model.attention_dropout=0.3",),
)
# One of each family.
FAMILIES = (PLAIN_OPT, PLAIN_LLAMA)
# The same for suites that train for minutes: the fast tests take the first.
FAMILIES_AT_LENGTH = (PLAIN_OPT, pytest.param(PLAIN_LLAMA, marks=pytest.mark.slow))
# All forms of a family that differ in what is computed.
FORMS = (
    PLAIN_OPT,
    Tiny("opt-no-bias", OPT, {"enable_bias": False}),
    Tiny("opt-no-affine", OPT, {"layer_norm_elementwise_affine": False}),
    Tiny("opt-bare", OPT, {"enable_bias": False, "layer_norm_elementwise_affine": False}),
    Tiny("opt-norm-behind", OPT, {"do_layer_norm_before": False}),
    PLAIN_LLAMA,
    Tiny("llama-one-kv-head", Llama(), {"num_key_value_heads": 1}),
    Tiny("llama-free-head", Llama(), {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    Tiny("llama-biases", Llama(), {"attention_bias": True, "mlp_bias": True, "head_dim": 12}),
    Tiny("llama-stretched", Llama(), {"rope_parameters": _LLAMA3}),
)
