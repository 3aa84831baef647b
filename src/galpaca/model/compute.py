"""How decoder layers are computed: compiled or not, and what backward computes again instead of keeping it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from galpaca.errors import Problems

if TYPE_CHECKING:
    from transformers import OPTForCausalLM

RECOMPUTATIONS = ("none", "selective", "full")


@dataclass(frozen=True)
class ComputeSpec:
    """Speed and memory options that never change the recipe: results differ by rounding at most.

    Attributes:
        compile: compile decoder layers with ``torch.compile``; default: wherever the fast attention is used.
        compile_backend: back end of ``torch.compile``.
        activation_checkpointing: ``none`` keeps all activations for backward; ``selective`` keeps the results of
            matrix products and attention and recomputes the cheap rest; ``full`` keeps only each layer's input and
            recomputes its forward.
    """

    compile: bool | None = None
    compile_backend: str = "inductor"
    activation_checkpointing: str = "none"

    def __post_init__(self) -> None:
        problems = Problems()
        problems.check_choice("compute.activation_checkpointing", self.activation_checkpointing, RECOMPUTATIONS)
        problems.raise_any()

    def compiles(self, fast_attention: bool) -> bool:
        return fast_attention if self.compile is None else self.compile

    def check(self, fast_attention: bool) -> None:
        """Checks that the layers can be compiled as requested.

        Raises:
            InputError: the compiler would silently skip the layers, or the back end is unknown.
        """
        import torch

        if not self.compiles(fast_attention):
            return
        problems = Problems()
        backends = sorted(torch.compiler.list_backends(exclude_tags=()))
        problems.check_choice("compute.compile_backend", self.compile_backend, tuple(backends))
        if self.activation_checkpointing != "none" and not fast_attention:
            problems.add(
                "activation checkpointing cannot be combined with compilation and per-example attention",
                where="compute.compile",
                why="the fast attention needs a GPU, a 16-bit precision and model.attention_dropout=0",
                fix="compute.compile=false, or compute.activation_checkpointing=none",
            )
        problems.raise_any()


def prepare_layers(model: OPTForCausalLM, spec: ComputeSpec, *, fast_attention: bool = False) -> None:
    """Makes a model of ``transformers`` one that ``galpaca.model.loss`` trains, before a strategy wraps it.

    The last layer works on target rows only; layers are wrapped and compiled as asked. Parameters and their names in
    the state dict stay as they are.
    """
    from galpaca.model.last_layer import TargetRowsLayer
    from galpaca.model.layer_unit import LayerUnit

    layers: Any = model.model.decoder.layers
    layers[-1] = TargetRowsLayer.like(layers[-1], model.config)
    compiled = spec.compiles(fast_attention)
    for place, layer in enumerate(layers):
        # One graph where that can be: a break in it would be lost speed that nobody sees.
        layers[place] = LayerUnit(layer, spec, compiled=compiled, fullgraph=fast_attention)
