"""A decoder layer as a unit: what a strategy shards, what is compiled, and what backward computes again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import ActivationWrapper
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from galpaca.model.attention import Boundaries
from galpaca.model.compute_spec import ComputeSpec


class LayerUnit(ActivationWrapper):
    """Runs a decoder layer as ``ComputeSpec`` says; torch's base class keeps itself out of the state dict's names.

    Args:
        layer: layer that maps (1, T, C) to (1, T, C), or, for the last one, to (1, K, C).
        spec: how to compute it.
        compiled: whether to compile it.
        fullgraph: fail on graph breaks.
        inputs: names of what the model hands to the layer besides the residual stream, and the layer needs.
    """

    def __init__(
        self, layer: nn.Module, spec: ComputeSpec, *, compiled: bool, fullgraph: bool, inputs: tuple[str, ...] = ()
    ) -> None:
        super().__init__(layer)
        self.compiled = compiled
        self._inputs = inputs
        self._recompute = _recomputation(spec.activation_checkpointing)
        self._compute: Callable[..., Tensor] = self._plain
        if compiled:
            backend = spec.compile_backend
            options = _options_of_inductor() if backend == "inductor" else None
            self._compute = torch.compile(self._plain, backend=backend, fullgraph=fullgraph, options=options)

    def forward(self, hidden_states: Tensor, *, boundaries: Boundaries, target_rows: Tensor, **others: Any) -> Tensor:
        """What else ``transformers`` hands to a layer (a cache, a mask) does not concern it here."""
        inputs = {name: others[name] for name in self._inputs}
        if self.compiled:
            # One program for all sizes from the first call on: a second one, compiled in the midst of a step, would
            # meet FSDP's gradients of a shard next to weights that are whole, and fail.
            torch._dynamo.maybe_mark_dynamic(hidden_states, 1)
            torch._dynamo.maybe_mark_dynamic(target_rows, 0)
            for tensor in tree_leaves(inputs):
                torch._dynamo.maybe_mark_dynamic(tensor, 1)
        return self._compute(hidden_states, boundaries=boundaries, target_rows=target_rows, **inputs)

    def _plain(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        layer = self._checkpoint_wrapped_module
        if self._recompute is None:
            return layer(hidden_states, **kwargs)
        return self._recompute(layer, hidden_states, **kwargs)


# By the number of rows, Inductor has two reductions of one tensor share a kernel or not, and compiles anew where the
# answer changes: at 6.7B for 1,280 target rows and for 8,192 tokens. Apart they move as much, or less.
_ONE_PROGRAM_FOR_ALL_SIZES = {"triton.mix_order_reduction": False}


def _options_of_inductor() -> dict[str, Any]:
    known = torch._inductor.list_options()  # other versions have others
    return {name: value for name, value in _ONE_PROGRAM_FOR_ALL_SIZES.items() if name in known}


def _recomputation(how: str) -> Callable[..., Tensor] | None:
    if how == "none":
        return None
    if how == "full":
        return partial(checkpoint, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _expensive_ops())
    return partial(checkpoint, use_reentrant=False, context_fn=contexts)


def _expensive_ops() -> list[Any]:
    """Operations that are expensive to recompute: matrix products and attention, on any device."""
    return [
        torch.ops.aten.mm.default,
        torch.ops.aten.addmm.default,
        torch.ops.aten.bmm.default,
        torch.ops.aten._scaled_dot_product_flash_attention.default,
        torch.ops.aten._scaled_dot_product_efficient_attention.default,
        torch.ops.aten._scaled_dot_product_cudnn_attention.default,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
        torch.ops.torch_attn._varlen_attn.default,
    ]
