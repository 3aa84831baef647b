"""The sizes of a run's model, without a network and, where its ``config.json`` says all, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from galpaca.app.config.schema import config_folder
from galpaca.app.config.shapes import raw_shape
from galpaca.errors import InputError, first_line
from galpaca.estimate.flops import Architecture
from galpaca.model.families.family import Family
from galpaca.model.families.known import family_of, named_family
from galpaca.model.families.opt import OPT
from galpaca.model.spec import ModelSpec

# GALACTICA's, for a model of random weights whose tokenizer is not at hand.
_VOCAB_SIZE = 50_000


def described_model(spec: ModelSpec) -> tuple[dict[str, Any], Family]:
    """What ``config.json`` says of a model, and its family.

    Raises:
        InputError: neither the model nor its sizes are at hand.
    """
    content = _content(spec)
    model_type = content.get("model_type")
    if not isinstance(model_type, str):
        raise InputError("names no model_type", where=spec.config or spec.path, fix="the config.json of a model")
    return content, family_of(model_type, spec.config or spec.path, spec.family)


def architecture_of(content: dict[str, Any], family: Family) -> Architecture:
    """The sizes that decide memory and speed.

    Raises:
        InputError: a size is none.
    """
    try:
        found = _architecture(content, family)
        sizes = (found.num_layers, found.hidden_size, found.ffn_size, found.vocab_size, found.heads_size)
        if all(isinstance(size, int) and size > 0 for size in sizes):
            return found
        reason = f"sizes must be above 0, got {sizes}"
    except Exception as error:  # transformers raises a dozen unrelated kinds
        reason = first_line(error)
    raise InputError(f"no sizes can be read: {reason}", where="config.json", fix="the model's config.json as published")


def _architecture(content: dict[str, Any], family: Family) -> Architecture:
    config: Any = SimpleNamespace(**{**family.config_defaults, **content})
    try:
        return family.architecture(config)
    except AttributeError:  # what transformers knows of a key that is left out
        from transformers import AutoConfig

        values = dict(content)
        return family.architecture(AutoConfig.for_model(values.pop("model_type"), **values))


def _content(spec: ModelSpec) -> dict[str, Any]:
    """As training takes it: of the path, where one is given; ``model.config`` may be of another model then."""
    if spec.path is None:
        return _read(Path(spec.config)) if spec.config else _of_sizes(spec)
    file = Path(spec.path) / "config.json"
    if file.is_file():
        return _read(file)
    name = spec.path.rpartition("/")[2].lower()
    if (config_folder() / "model" / f"{name}.json").is_file():
        return raw_shape(name)
    return _from_cache(spec.path, spec.revision)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        reason = "it is no mapping"
    except (OSError, ValueError) as error:
        reason = first_line(error)
    raise InputError(f"cannot be read: {reason}", where=file, fix="the config.json of a model")


def _of_sizes(spec: ModelSpec) -> dict[str, Any]:
    """Of a model of random weights, as its family's configuration has them."""
    family = named_family(spec.family) if spec.family else OPT
    sizes = {
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads or spec.num_heads,
        "max_position_embeddings": spec.max_positions,
        "vocab_size": _VOCAB_SIZE,
        "tie_word_embeddings": True,
    }
    width = {"ffn_dim": spec.ffn_size} if family.model_type == "opt" else {"intermediate_size": spec.ffn_size}
    return {"model_type": family.model_type, **sizes, **width}


def _from_cache(path: str, revision: str | None) -> dict[str, Any]:
    from transformers import AutoConfig  # heavy, and for models that nothing here knows

    try:
        return AutoConfig.from_pretrained(path, revision=revision, local_files_only=True).to_dict()
    except Exception as error:  # the library raises a dozen unrelated kinds
        raise InputError(
            f"the sizes of {path} are not known without a network",
            where="model.path",
            why=first_line(error),
            fix="model.config=FILE, its config.json; or a folder; or prepare it first: galpaca prepare",
        ) from None
