"""The keys of a configuration, as one types them."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf


def keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys below a node, groups too."""
    for key in map(str, node):
        yield prefix + key
        if not OmegaConf.is_interpolation(node, key) and isinstance(node[key], DictConfig):
            yield from keys_of(node[key], f"{prefix}{key}.")
