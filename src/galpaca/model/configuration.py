"""The configuration of the run's model: read, checked, and told to a family."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.errors import InputError, Problems, first_line
from galpaca.files.checksums import json_digest
from galpaca.model.families.family import Family
from galpaca.model.families.known import family_of, named_family, read_family
from galpaca.model.families.opt import OPT
from galpaca.model.spec import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from galpaca.data.tokenizer import Tokenizer


def check_model(spec: ModelSpec, max_length: int) -> Family:
    """Checks a model's architecture and context length, before there is a tokenizer.

    Returns:
        The model's family.

    Raises:
        InputError: no such model, one of no known family, or its context length is too short.
    """
    if spec.path or spec.config:
        config, family = described(spec)
        positions = family.num_positions(config)
    else:
        positions, family = spec.max_positions or 0, named_family(spec.family) if spec.family else OPT
    if max_length > positions:
        raise InputError(
            f"must not exceed the model's context length of {positions:,}, got {max_length:,}",
            where="data.max_length",
            fix=f"data.max_length={positions} or less",
        )
    return family


def read_config(spec: ModelSpec, family: Family, tokenizer: Tokenizer) -> PreTrainedConfig:
    """The model's configuration, from its folder or from the spec, checked against the tokenizer.

    Raises:
        InputError: a tokenizer larger than the vocabulary.
    """
    has_file = spec.path or spec.config
    config: Any = described(spec)[0] if has_file else family.random_config(spec, tokenizer)
    family.configure(config, family.completed(spec))
    with Problems() as problems:
        if tokenizer.vocab_size > config.vocab_size:
            problems.add(
                f"the tokenizer has {tokenizer.vocab_size:,} ids, but the model's vocabulary has {config.vocab_size:,}",
                where="model.tokenizer",
                why=f"{tokenizer.source} and {spec.path or spec.config} do not match",
                fix="model.tokenizer=null uses the model's own tokenizer",
            )
    return config


def described(spec: ModelSpec) -> tuple[PreTrainedConfig, Family]:
    """The configuration in a model's folder, or in ``model.config``, and the family that it is of.

    Raises:
        InputError: there is none, or it is of no known family, or has what cannot be trained.
    """
    where = spec.path or spec.config
    try:
        config, family = _read(spec)
    except InputError:
        raise
    except Exception as error:  # the library raises a dozen unrelated kinds
        raise InputError(
            f"cannot read the model's configuration: {first_line(error)}",
            where=where,
            fix="model.path=FOLDER_OR_HUB_ID; without a network, a folder or a cached Hub id"
            if spec.path
            else "model.config=FILE, the config.json of a model, or model.path",
        ) from None
    family.check(config, where)
    if getattr(config, "quantization_config", None):
        raise InputError(
            "the weights are quantized",
            where=where,
            why="training starts from the numbers of the model, and quantizes them itself where it is asked to",
            fix="model.path=THE_MODEL_ITSELF, with tuning=qlora for 4 bits",
        )
    return config, family


def _read(spec: ModelSpec) -> tuple[Any, Family]:
    if spec.path:
        check_folder(spec.path, "model.path")
        _check_adapter(Path(spec.path))
        return read_family(spec.path, spec.family, spec.revision)
    from transformers import AutoConfig

    if spec.family:
        named_family(spec.family)
    config: Any = AutoConfig.for_model(**_content(spec))
    return config, family_of(config.model_type, spec.config, spec.family)


def _content(spec: ModelSpec) -> dict[str, Any]:
    content = json.loads(Path(str(spec.config)).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise ValueError("it has no model_type")
    return content


def recorded(spec: ModelSpec, family: Family) -> ModelSpec:
    """A spec as recipes record it: completed, and nothing said twice. Two that are equal are one model.

    Of ``model.config`` there is the SHA-256 of its content, where that decides the model.
    """
    spec = family.completed(spec)
    has_file = bool(spec.path or spec.config)
    is_found = family.model_type == spec.family and (has_file or family is OPT)
    decides = spec.config is not None and spec.path is None
    config = json_digest(_content(spec)) if decides else None
    return replace(spec, family=None if is_found else spec.family, config=config)


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
