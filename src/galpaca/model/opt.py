"""OPT models: GALACTICA's sizes, configuration, checks and initial weights."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.errors import InputError, Problems, first_line
from galpaca.estimate.flops import Architecture

if TYPE_CHECKING:
    from torch import nn
    from transformers import OPTConfig, OPTForCausalLM

    from galpaca.data.tokenizer import Tokenizer
    from galpaca.model.tensors import Shapes, TensorSource


@dataclass(frozen=True)
class ModelSpec:
    """Which model to train.

    Attributes:
        path: folder or Hub id of an OPT model; None starts from random weights with the architecture below.
        revision: revision of the Hub id.
        tokenizer: folder or Hub id; default: the model's own.
        num_layers: number of decoder layers; this and the next four only if there is no path.
        hidden_size: width of the residual stream; a multiple of ``num_heads``.
        num_heads: attention heads per layer.
        ffn_size: width of the feed-forward block.
        max_positions: context length in tokens.
        dropout: dropout probability of embeddings and residual branches during training.
        attention_dropout: dropout probability of attention weights; above 0 uses the slower per-example attention.
        license: license of the weights, for the model card.
    """

    path: str | None = None
    revision: str | None = None
    tokenizer: str | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    num_heads: int | None = None
    ffn_size: int | None = None
    max_positions: int | None = None
    dropout: float = 0.1
    attention_dropout: float = 0.0
    license: str | None = None

    def __post_init__(self) -> None:
        problems = Problems()
        for name in ("dropout", "attention_dropout"):
            problems.check_number(f"model.{name}", getattr(self, name), "in [0, 1)", f"model.{name}=0")
        if self.path is None:
            for name in ("num_layers", "hidden_size", "num_heads", "ffn_size", "max_positions"):
                problems.check_at_least_one("model.", {name: getattr(self, name)})
                if getattr(self, name) is None:
                    problems.add("required when model.path is not set", where=f"model.{name}", fix=f"model.{name}=N")
            if self.hidden_size and self.num_heads and self.hidden_size % self.num_heads:
                problems.add(
                    f"must be a multiple of model.num_heads={self.num_heads}, got {self.hidden_size}",
                    where="model.hidden_size",
                    fix="change model.hidden_size or model.num_heads",
                )
        if self.path is None and self.tokenizer is None:
            fix = "model.tokenizer=FOLDER_OR_HUB_ID, or model.path"
            problems.add("no tokenizer given", where="model.tokenizer", fix=fix)
        problems.raise_any()

    @property
    def tokenizer_path(self) -> str:
        return self.tokenizer or self.path or ""


def check_model(spec: ModelSpec, max_length: int) -> None:
    """Checks a model's architecture and context length, before there is a tokenizer.

    Raises:
        InputError: no such model, not an OPT model, or its context length is too short.
    """
    positions = _config_of(spec).max_position_embeddings if spec.path else spec.max_positions or 0
    if max_length > positions:
        raise InputError(
            f"must not exceed the model's context length of {positions:,}, got {max_length:,}",
            where="data.max_length",
            fix=f"data.max_length={positions} or less",
        )


def read_config(spec: ModelSpec, tokenizer: Tokenizer) -> OPTConfig:
    """The model's configuration, from its folder or from the spec, checked against the tokenizer.

    Raises:
        InputError: a tokenizer larger than the vocabulary.
    """
    config = _config_of(spec) if spec.path else _bare_config(spec, tokenizer)
    config.dropout, config.attention_dropout = spec.dropout, spec.attention_dropout
    with Problems() as problems:
        if tokenizer.vocab_size > config.vocab_size:
            problems.add(
                f"the tokenizer has {tokenizer.vocab_size:,} ids, but the model's vocabulary has {config.vocab_size:,}",
                where="model.tokenizer",
                why=f"{tokenizer.source} and {spec.path} do not match",
                fix="model.tokenizer=null uses the model's own tokenizer",
            )
    return config


def build_model(config: OPTConfig) -> OPTForCausalLM:
    """The model in training mode, ready for packed examples, its float32 parameters on the meta device.

    They take no memory there: each gets its place where the strategy puts it, and its values from a ``TensorSource``.
    """
    import torch
    from transformers import OPTForCausalLM

    from galpaca.model.attention import PACKED_ATTENTION

    with torch.device("meta"):
        model = OPTForCausalLM._from_config(config, dtype=torch.float32)
    model.set_attn_implementation(PACKED_ATTENTION)
    # Lightning keeps the mode it finds: left in eval mode, dropout would silently be off.
    return model.train()


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes by name, a tied parameter once."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def open_weights(spec: ModelSpec, config: OPTConfig, shapes: Shapes, seed: int) -> TensorSource:
    """Opens the run's initial weights.

    Args:
        shapes: parameter shapes that the model expects.
        seed: seed of random weights.

    Raises:
        InputError: weights that are missing, unexpected, of the wrong shape, truncated or unreadable.
    """
    from galpaca.model.folder_tensors import FolderTensors
    from galpaca.model.random_tensors import RandomTensors
    from galpaca.model.tensors import check_shapes

    if spec.path is None:
        return RandomTensors(shapes, seed=seed, std=config.init_std, pad_id=config.pad_token_id)
    source = FolderTensors(Path(spec.path), tied_head=config.tie_word_embeddings)
    check_shapes(source.shapes, shapes, spec.path, "download or copy the model again")
    return source


def check_weights(spec: ModelSpec, config: OPTConfig | None = None, seed: int = 0) -> int:
    """Checks names and shapes of the initial weights against the model.

    Args:
        config: default: the configuration in the model's folder.
        seed: seed of random weights.

    Returns:
        The model's number of parameters.

    Raises:
        InputError: as ``open_weights``; or not the configuration of an OPT model.
    """
    config = config or _config_of(spec)
    model = build_model(config)
    open_weights(spec, config, parameter_shapes(model), seed)
    return sum(parameter.numel() for parameter in model.parameters())


def architecture_of(config: OPTConfig) -> Architecture:
    """The sizes that determine the model's FLOPs."""
    return Architecture(config.num_hidden_layers, config.hidden_size, config.ffn_dim, config.vocab_size)


def _bare_config(spec: ModelSpec, tokenizer: Tokenizer) -> OPTConfig:
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


def _config_of(spec: ModelSpec) -> OPTConfig:
    from transformers import AutoConfig, OPTConfig

    check_folder(str(spec.path), "model.path")
    _check_adapter(Path(str(spec.path)))
    try:
        config: Any = AutoConfig.from_pretrained(str(spec.path), revision=spec.revision)
    except Exception as error:  # the library raises a dozen unrelated kinds
        raise InputError(
            f"cannot read the model's configuration: {first_line(error)}",
            where=spec.path,
            fix="model.path=FOLDER_OR_HUB_ID; without a network, a folder or a cached Hub id",
        ) from None
    if not isinstance(config, OPTConfig):
        raise InputError(
            f"must be an OPT model, got {config.model_type!r}",
            where=spec.path,
            why="packed attention and the recipe support OPT only",
            fix="use GALACTICA or another OPT model",
        )
    if getattr(config, "quantization_config", None):
        raise InputError(
            "the weights are quantized",
            where=spec.path,
            why="training starts from the numbers of the model, and quantizes them itself where it is asked to",
            fix="model.path=THE_MODEL_ITSELF, with tuning=qlora for 4 bits",
        )
    return config


def _check_adapter(folder: Path) -> None:
    """Of an adapter's folder, and of whole weights beside one, which transformers would not load."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        return
    if (folder / "config.json").is_file():
        raise InputError(
            "adapter_config.json lies beside the weights of a whole model",
            where=folder,
            why="transformers would load the adapter onto another model, and not these weights",
            fix=f"move it away if the weights are merged: {shlex.join(['mv', str(config), str(folder.parent)])}",
        )
    raise InputError(
        "this is an adapter, not a model",
        where=folder,
        why="it has no weights but those that were trained beside another model's",
        fix="model.path=THE_MODEL_IT_BELONGS_TO, or merge it first: galpaca export RUN FOLDER",
    )


def check_folder(path: str, key: str) -> None:
    """Checks that a path, if it is not a Hub id, is a folder.

    Raises:
        InputError: no such folder.
    """
    looks_like_a_path = path.startswith(("/", ".", "~")) or path.count("/") > 1
    if looks_like_a_path and not Path(path).is_dir():
        raise InputError("no such folder", where=path, fix=f"{key}=FOLDER_OR_HUB_ID")
