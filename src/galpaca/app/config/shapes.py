"""The sizes of the models that ``conf/model/`` names, as their ``config.json`` has them: no network is needed."""

import json
from typing import Any

from galpaca.app.config.schema import config_folder
from galpaca.estimate.flops import Architecture
from galpaca.model.configuration import described
from galpaca.model.spec import ModelSpec


def raw_shape(name: str) -> dict[str, Any]:
    """The content of a model's ``config.json``.

    Args:
        name: of a file of ``conf/model/``, such as ``galactica-6.7b``.
    """
    content: dict[str, Any] = json.loads((config_folder() / "model" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def shape_of(name: str) -> Architecture:
    """The sizes of a model.

    Args:
        name: of a file of ``conf/model/``, such as ``galactica-6.7b``.
    """
    config, family = described(ModelSpec(config=str(config_folder() / "model" / f"{name}.json"), tokenizer="none"))
    return family.architecture(config)
