"""OPT models: GALACTICA's sizes, configurations read and checked, weights in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.errors import GalpacaError, InputError, Problems
from galpaca.estimate.flops import Architecture

if TYPE_CHECKING:
    from transformers import OPTConfig, OPTForCausalLM

    from galpaca.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelSpec:
    """Which model to train.

    Attributes:
        path: folder or Hub id of an OPT model; None gives random weights of the architecture below.
        revision: of the Hub id.
        tokenizer: folder or Hub id; by default that of the model.
        num_layers, hidden_size, num_heads, ffn_size, max_positions: the architecture, where there is no path.
        dropout: of embeddings and residual branches, during training.
        attention_dropout: of attention weights; anything above 0 takes the slower attention over single examples.
        license: of the weights, for the model card.
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
            if not 0 <= getattr(self, name) < 1:
                problems.add(f"{getattr(self, name)} is no probability below 1", where=f"model.{name}", fix="0 to 0.99")
        if self.path is None:
            for name in ("num_layers", "hidden_size", "num_heads", "ffn_size", "max_positions"):
                size = getattr(self, name)
                if size is None:
                    problems.add("a model without a path needs a size", where=f"model.{name}", fix=f"model.{name}=N")
                elif size < 1:
                    problems.add(f"{size} is too few", where=f"model.{name}", fix=f"model.{name}=1 or more")
            if self.hidden_size and self.num_heads and self.hidden_size % self.num_heads:
                problems.add(
                    f"{self.hidden_size} is no multiple of the {self.num_heads} heads",
                    where="model.hidden_size",
                    fix="choose a multiple of model.num_heads",
                )
        if self.path is None and self.tokenizer is None:
            problems.add(
                "no tokenizer is named", where="model.tokenizer", fix="model.tokenizer=FOLDER_OR_HUB_ID, or model.path"
            )
        problems.raise_any()

    @property
    def tokenizer_path(self) -> str:
        return self.tokenizer or self.path or ""


def check_model(spec: ModelSpec, max_length: int) -> None:
    """What can be told of a model before there is a tokenizer: its kind, its positions, its files.

    Reads headers of weight files, no weights, so that mistakes are told before the data is encoded.

    Raises:
        InputError: no such model, not OPT, too few positions, weight files missing or truncated.
    """
    problems = Problems()
    positions = _config_of(spec).max_position_embeddings if spec.path else spec.max_positions or 0
    if max_length > positions:
        problems.add(
            f"{max_length:,} tokens, and the model has {positions:,} positions",
            where="data.max_length",
            fix=f"data.max_length={positions} or less",
        )
    _check_weight_files(problems, spec)
    problems.raise_any()


def read_config(spec: ModelSpec, tokenizer: Tokenizer) -> OPTConfig:
    """The model's configuration, from its folder or made of the spec, checked against the tokenizer.

    Raises:
        InputError: a tokenizer larger than the vocabulary.
    """
    config = _config_of(spec) if spec.path else _bare_config(spec, tokenizer)
    config.dropout, config.attention_dropout = spec.dropout, spec.attention_dropout
    problems = Problems()
    if tokenizer.vocab_size > config.vocab_size:
        problems.add(
            f"the tokenizer has {tokenizer.vocab_size:,} ids and the model's vocabulary {config.vocab_size:,}",
            where="model.tokenizer",
            why=f"{tokenizer.source} and {spec.path} do not belong together",
            fix="model.tokenizer=null takes the model's own tokenizer",
        )
    problems.raise_any()
    return config


def build_model(spec: ModelSpec, config: OPTConfig, seed: int) -> OPTForCausalLM:
    """The model in training mode with float32 weights, ready for packed examples.

    Raises:
        InputError: weights missing, unexpected, misshapen, truncated or unreadable.
    """
    import torch
    from transformers import OPTForCausalLM

    from galpaca.model.attention import PACKED_ATTENTION

    if spec.path is None:
        torch.manual_seed(seed)
        model = OPTForCausalLM(config)
        model.set_attn_implementation(PACKED_ATTENTION)
    else:
        model = _load(spec, config, PACKED_ATTENTION)
    # from_pretrained leaves the model in eval mode, and Lightning would keep it: dropout silently off.
    model.train()
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise GalpacaError("weights are not float32", where=spec.path, why="mixed precision trains float32 weights")
    return model


def architecture_of(config: OPTConfig) -> Architecture:
    """The sizes that decide the model's operations."""
    return Architecture(config.num_hidden_layers, config.hidden_size, config.ffn_dim, config.vocab_size)


def _bare_config(spec: ModelSpec, tokenizer: Tokenizer) -> OPTConfig:
    from transformers import OPTConfig

    sizes: dict[str, Any] = {
        "hidden_size": spec.hidden_size,
        "word_embed_proj_dim": spec.hidden_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "ffn_dim": spec.ffn_size,
        "max_position_embeddings": spec.max_positions,
    }
    return OPTConfig(
        **sizes,
        vocab_size=tokenizer.vocab_size,
        activation_function="gelu",  # GALACTICA's; OPTConfig's own default is relu
        bos_token_id=tokenizer.hf.bos_token_id,
        pad_token_id=tokenizer.pad_id,
        eos_token_id=tokenizer.eos_id,
    )


def _config_of(spec: ModelSpec) -> OPTConfig:
    from transformers import AutoConfig, OPTConfig

    check_folder(str(spec.path), "model.path")
    try:
        config: Any = AutoConfig.from_pretrained(str(spec.path), revision=spec.revision)
    except Exception as error:  # the library raises a dozen unrelated kinds
        raise InputError(
            f"the model's configuration cannot be read: {_first_line(error)}",
            where=spec.path,
            fix="model.path=FOLDER_OR_HUB_ID; without a network, a folder or a Hub id that is in the cache",
        ) from None
    if not isinstance(config, OPTConfig):
        raise InputError(
            f"a model of the kind {config.model_type!r}, not OPT",
            where=spec.path,
            why="packed attention and the recipe are those of OPT",
            fix="use GALACTICA or another OPT model",
        )
    return config


def _load(spec: ModelSpec, config: OPTConfig, attention: str) -> OPTForCausalLM:
    import torch
    from transformers import OPTForCausalLM
    from transformers.utils import logging

    told = logging.get_verbosity()
    logging.set_verbosity_error()  # what is wrong is told below
    try:
        loaded: Any = OPTForCausalLM.from_pretrained(
            spec.path,
            revision=spec.revision or "main",
            config=config,
            dtype=torch.float32,  # else the checkpoint's own, float16 for GALACTICA
            attn_implementation=attention,
            ignore_mismatched_sizes=True,  # told below, by name; else the library prints a table and names none
            output_loading_info=True,
        )
    except Exception as error:  # safetensors, pickle and the Hub each raise their own kinds
        raise InputError(
            f"the weights cannot be loaded: {_first_line(error)}",
            where=spec.path,
            why="a weight file is missing, truncated or not this model's",
            fix="download or copy the model again",
        ) from None
    finally:
        logging.set_verbosity(told)
    model: OPTForCausalLM
    model, report = loaded
    problems = Problems()
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        for key in _listed(report.get(kind)):
            problems.add(f"{kind.split('_')[0]} weight: {key}", where=spec.path, fix="download or copy the model again")
    problems.raise_any()
    return model


def check_folder(path: str, key: str) -> None:
    """Raises:
    InputError: a path, not a Hub id, and there is no such folder.
    """
    looks_like_a_path = path.startswith(("/", ".", "~")) or path.count("/") > 1
    if looks_like_a_path and not Path(path).is_dir():
        raise InputError("there is no such folder", where=path, fix=f"{key}=FOLDER_OR_HUB_ID")


def _check_weight_files(problems: Problems, spec: ModelSpec) -> None:
    folder = Path(str(spec.path))
    if not spec.path or not folder.is_dir():
        return
    again = "copy or download it again"
    singles = ("model.safetensors", "pytorch_model.bin")
    files = {folder / name for name in singles if (folder / name).is_file()}
    for index in (folder / f"{name}.index.json" for name in singles):
        try:
            files |= {folder / shard for shard in json.loads(index.read_text())["weight_map"].values()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError) as error:
            problems.add(f"the index is no JSON with a weight_map: {error}", where=index, fix=again)
            return
    if not files:
        problems.add("the folder holds no weights", where=folder, why="no model.safetensors", fix=again)
    for path in sorted(files):
        if not path.is_file():
            problems.add("the weight file is missing", where=path, fix=again)
        elif path.suffix == ".safetensors" and (damage := _damage(path)):
            problems.add(f"the weight file is truncated or damaged: {damage}", where=path, fix=again)


def _damage(path: Path) -> str:
    """What the header says against the file; reads the header only."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy"):
            return ""
    except (SafetensorError, OSError) as error:
        return _first_line(error)


def _listed(value: Any) -> list[str]:
    return sorted(str(item[0] if isinstance(item, tuple) else item) for item in value or ())


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
