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
    """A matter of speed and memory, never of the recipe: results differ by rounding at most.

    Attributes:
        compile: decoder layers by ``torch.compile``; by default wherever the fast attention is.
        compile_backend: its back end.
        activation_checkpointing: ``none`` keeps all activations for backward; ``selective`` keeps the results of
            matrix products and attention and computes the cheap rest again; ``full`` keeps each layer's input only
            and runs its forward twice.
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
        """Raises:
        InputError: asked to compile what the compiler would leave alone without a word, or by an unknown back end.
        """
        import torch

        if not self.compiles(fast_attention):
            return
        problems = Problems()
        backends = sorted(torch.compiler.list_backends(exclude_tags=()))
        problems.check_choice("compute.compile_backend", self.compile_backend, tuple(backends))
        if self.activation_checkpointing != "none" and not fast_attention:
            problems.add(
                "layers that are computed again cannot be compiled with the attention over single examples",
                where="compute.compile",
                why="the fast attention takes a GPU, a 16-bit precision and model.attention_dropout=0",
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
