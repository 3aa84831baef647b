"""Prepares decoder layers for training: the last one on target rows, each compiled and recomputed as configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.families.family import Family

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def prepare_layers(model: PreTrainedModel, family: Family, spec: ComputeSpec, *, fast_attention: bool = False) -> None:
    """Makes a model of ``transformers`` one that ``galpaca.model.loss`` trains, before a strategy wraps it.

    The last layer works on target rows only; layers are wrapped and compiled as configured. Parameters and their names
    in the state dict stay as they are.
    """
    from galpaca.model.layer_unit import LayerUnit  # heavy: the checks before it do not need it

    layers: Any = model.get_submodule(family.layers)
    layers[-1] = family.last_layer(layers[-1], model.config)
    compiled = spec.compiles(fast_attention)
    for index, layer in enumerate(layers):
        # One graph where that can be: a break in it would be lost speed that nobody sees.
        layers[index] = LayerUnit(layer, spec, compiled=compiled, fullgraph=fast_attention, inputs=family.layer_inputs)
