"""Models as they are trained, and the weights that they start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from galpaca.errors import GalpacaError
from galpaca.model.families.family import Family
from galpaca.model.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from galpaca.model.tensors import Shapes, TensorSource


def build_model(config: PreTrainedConfig, family: Family) -> PreTrainedModel:
    """The model in training mode, ready for packed examples, its float32 parameters on the meta device.

    They take no memory there: each gets its place where the strategy puts it, and its values from a ``TensorSource``.

    Raises:
        GalpacaError: the family leaves a buffer without values.
    """
    import torch

    from galpaca.model.attention import PACKED_ATTENTION

    model = family.build(config, torch.float32)
    if without := [name for name, buffer in model.named_buffers() if buffer.is_meta]:
        raise GalpacaError(
            f"{family.title} models have buffers without values: {', '.join(without)}",
            where=type(family).__name__,
            why="they are in no file of weights, so training would compute with whatever is in memory",
            fix="compute them in the family's build",
        )
    model.set_attn_implementation(PACKED_ATTENTION)
    # Lightning keeps the mode it finds: left in eval mode, dropout would silently be off.
    model.train()
    return model


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes by name, a tied parameter once."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def open_weights(spec: ModelSpec, family: Family, config: PreTrainedConfig, shapes: Shapes, seed: int) -> TensorSource:
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
        return RandomTensors(
            shapes,
            family,
            seed=seed,
            std=family.initial_std(config),
            pad_id=config.pad_token_id,
        )
    source = FolderTensors(Path(spec.path), family, tied_head=config.tie_word_embeddings)
    check_shapes(source.shapes, shapes, spec.path, "download or copy the model again")
    return source


def check_weights(spec: ModelSpec, family: Family, config: PreTrainedConfig, seed: int = 0) -> int:
    """Checks names and shapes of the initial weights against the model.

    Args:
        seed: seed of random weights.

    Returns:
        The model's number of parameters.

    Raises:
        InputError: as ``open_weights``.
    """
    model = build_model(config, family)
    open_weights(spec, family, config, parameter_shapes(model), seed)
    return sum(parameter.numel() for parameter in model.parameters())
