"""Options shared by ``generate`` and ``chat``: which model to load, and how to sample from it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console

from galpaca.app.evaluation.loading import check_date
from galpaca.app.options.names import with_option_names
from galpaca.inference.places import find_model
from galpaca.inference.settings import Dtype, Settings, WeightOptions

if TYPE_CHECKING:
    from galpaca.inference.loading import Loaded


@dataclass(frozen=True)
class ModelOptions:
    """Which model to load, and how to sample from it.

    Attributes:
        model: a released folder, a run folder or a Hub id.
        dtype: dtype of the weights; None means the folder's own on a GPU and float32 on a CPU.
        template: prompt template; None takes the folder's own.
        weights: how weights are loaded.
        settings: sampling settings from the command line.
        max_new_tokens: most tokens of an answer; None takes the folder's default.
        template_date: what a tokenizer's own template takes for today; None takes the folder's.
    """

    model: str
    dtype: Dtype | None
    template: str | None
    weights: WeightOptions
    settings: Settings
    max_new_tokens: int | None
    template_date: str | None = None

    def check(self) -> None:
        """Checks the settings and the model's folder, before anything heavy is loaded.

        Raises:
            InputError: invalid settings, or a folder without a model.
        """
        given = self.settings
        check_date(self.template_date)
        find_model(self.model)
        (given if self.max_new_tokens is None else replace(given, max_new_tokens=self.max_new_tokens)).check()

    def load(self, console: Console) -> tuple[Loaded, Settings]:
        """Loads the model; its default answer length fills in where none was given."""
        # Not where nobody watches: a log would show an empty line.
        shown = console.status(f"loading {self.model}") if console.is_terminal else nullcontext()
        with with_option_names(), shown:
            from galpaca.inference.loading import load  # seconds to import

            how = {"template": self.template, "template_date": self.template_date}
            loaded = load(self.model, dtype=self.dtype, weights=self.weights, **how)
        return loaded, replace(self.settings, max_new_tokens=self.max_new_tokens or loaded.max_new_tokens)
