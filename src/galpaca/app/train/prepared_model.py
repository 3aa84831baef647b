"""A model made ready for training, after it is built and before a strategy takes it."""

import torch
from transformers import PreTrainedModel

from galpaca.app.config.schema import Config
from galpaca.model.compute import prepare_layers
from galpaca.model.half_residual import halve_residual


def prepare_model(model: PreTrainedModel, config: Config) -> None:
    """Puts layers as training computes them in place, what is trained beside them, and the stream's width.

    Args:
        model: on the meta device.
        config: of a family: see ``Config.on``.
    """
    tuning = config.tuning.method
    prepare_layers(model, tuning.family, config.compute, fast_attention=config.fast_attention)
    tuning.prepare(model, getattr(torch, config.precision.compute_dtype))
    if config.precision.half_residual:
        halve_residual(model, tuning.family)
