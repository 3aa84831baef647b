"""Loads any causal model for a command that measures it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

from galpaca.data.pinned_date import parsed_date
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
    def template_date(self) -> str | None: ...
    @property
    def weights(self) -> WeightOptions: ...


def load_shown(model: str, how: LoadingOptions, console: Console) -> Loaded:
    """Loads any causal model, with a spinner in a terminal."""
    with console.status(f"loading {model}") if console.is_terminal else nullcontext():
        from galpaca.inference.any_model import load_any  # seconds to import

        of_template = {"template": how.template, "template_date": how.template_date}
        return load_any(model, dtype=how.dtype, weights=how.weights, **of_template)


def check_date(date: str | None) -> None:
    """Checks ``--template-date``.

    Raises:
        InputError: it is no date.
    """
    if date is not None:
        parsed_date(date, "--template-date")
