"""Layers that stand in the place of those of ``transformers``, with their parameters."""

from typing import Any, TypeVar

import torch
from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def in_place_of(layer: nn.Module, cls: type[Layer], *arguments: Any) -> Layer:
    """A layer of another class that holds the parameters of ``layer``.

    Args:
        cls: a class with parameters of the same names.
        arguments: what makes one of it.
    """
    with torch.device("meta"):
        own = cls(*arguments)
    own.load_state_dict(layer.state_dict(keep_vars=True), assign=True)
    return own.train(layer.training)
