"""Loads any causal model for a command that measures it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

from galpaca.inference.settings import Dtype, WeightOptions

if TYPE_CHECKING:
    from galpaca.inference.loading import Loaded


class LoadingOptions(Protocol):
    """What commands have in common that load any model."""

    @property
    def dtype(self) -> Dtype | None: ...
    @property
    def template(self) -> str | None: ...
    @property
    def weights(self) -> WeightOptions: ...


def load_shown(model: str, how: LoadingOptions, console: Console) -> Loaded:
    """Loads any causal model, with a spinner in a terminal."""
    with console.status(f"loading {model}") if console.is_terminal else nullcontext():
        from galpaca.inference.any_model import load_any  # seconds to import

        return load_any(model, dtype=how.dtype, template=how.template, weights=how.weights)
