"""How decoder layers are computed, as a plain record: cheap to import, so that errors in it come before torch."""

from dataclasses import dataclass

from galpaca.errors import Problems

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
        deterministic: on a GPU, add in the same order every time (attention's backward, matrix products), so that a run
            that was killed and resumed ends in the same bits; false may be faster. A CPU always does.
    """

    compile: bool | None = None
    compile_backend: str = "inductor"
    activation_checkpointing: str = "none"
    deterministic: bool = True

    def __post_init__(self) -> None:
        with Problems() as problems:
            problems.check_choice("compute.activation_checkpointing", self.activation_checkpointing, RECOMPUTATIONS)

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
        with Problems() as problems:
            backends = sorted(torch.compiler.list_backends(exclude_tags=()))
            problems.check_choice("compute.compile_backend", self.compile_backend, tuple(backends))
            if self.activation_checkpointing != "none" and not fast_attention:
                problems.add(
                    "activation checkpointing cannot be combined with compilation and per-example attention",
                    where="compute.compile",
                    why="the fast attention needs a GPU of compute capability 8.0 or more, a 16-bit precision and "
                    "model.attention_dropout=0",
                    fix="compute.compile=false, or compute.activation_checkpointing=none",
                )


def takes_fast_attention(precision: str, attention_dropout: float) -> bool:
    """Whether a run on a recent GPU can take one kernel over all examples."""
    return precision in ("16-mixed", "bf16-mixed") and attention_dropout == 0.0


def compute_dtype(precision: str) -> str:
    """Dtype of matrix products in a precision of Lightning's."""
    return {"64-true": "float64", "bf16-mixed": "bfloat16", "16-mixed": "float16"}.get(precision, "float32")
