"""Prepares decoder layers for training: the last one on target rows, each compiled and recomputed as configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from galpaca.model.compute_spec import ComputeSpec

if TYPE_CHECKING:
    from transformers import OPTForCausalLM


def prepare_layers(model: OPTForCausalLM, spec: ComputeSpec, *, fast_attention: bool = False) -> None:
    """Makes a model of ``transformers`` one that ``galpaca.model.loss`` trains, before a strategy wraps it.

    The last layer works on target rows only; layers are wrapped and compiled as configured. Parameters and their names
    in the state dict stay as they are.
    """
    from galpaca.model.last_layer import TargetRowsLayer  # heavy: the checks before it need neither
    from galpaca.model.layer_unit import LayerUnit

    layers: Any = model.model.decoder.layers
    layers[-1] = TargetRowsLayer.like(layers[-1], model.config)
    compiled = spec.compiles(fast_attention)
    for index, layer in enumerate(layers):
        # One graph where that can be: a break in it would be lost speed that nobody sees.
        layers[index] = LayerUnit(layer, spec, compiled=compiled, fullgraph=fast_attention)
