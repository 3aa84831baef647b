"""The configuration that a run keeps of its model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from galpaca.model.families.family import Family
from galpaca.model.families.known import family_of, named_family


def kept_config(folder: Path, settings: Mapping[str, Any]) -> tuple[Any, Family]:
    """The configuration in a run's folder, and the family that the run has.

    Args:
        folder: that of what a release needs.
        settings: of the run's recipe.

    Raises:
        InputError: a family of no known name.
        Exception: of many kinds, where the file is missing or damaged.
    """
    named = settings.get("model.family")
    if named:
        named_family(named)  # whose module may make its type known to transformers
    config = AutoConfig.from_pretrained(folder)
    return config, family_of(config.model_type, folder / "config.json", named)
