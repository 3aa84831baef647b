"""The model that ``generate`` and ``chat`` ask, and how."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from galpaca.app.own_options import told_in_own_options
from galpaca.inference.places import find_model
from galpaca.inference.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from galpaca.inference.loading import Dtype, Loaded


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is loaded and asked.

    Attributes:
        model: released folder, run folder or Hub id.
        dtype: of its weights; None is the folder's on a GPU and float32 on a CPU.
        template: None is what the folder says.
        settings: as given.
        max_new_tokens: None is what the folder says.
    """

    model: str
    dtype: Dtype | None
    template: str | None
    settings: Settings
    max_new_tokens: int | None

    def check(self) -> None:
        """Raises:
        InputError: settings that make no sense, or a folder without a model; before anything heavy is loaded.
        """
        given = self.settings
        find_model(self.model)
        (given if self.max_new_tokens is None else replace(given, max_new_tokens=self.max_new_tokens)).check()

    def load(self, console: Console) -> tuple[Loaded, Settings]:
        """The model, and the settings with its own length of an answer where none is given."""
        # Not where nobody watches: a log would show an empty line.
        shown = console.status(f"loading {self.model}") if console.is_terminal else nullcontext()
        with told_in_own_options(), shown:
            from galpaca.inference.loading import load  # seconds to import

            loaded = load(self.model, dtype=self.dtype, template=self.template)
        return loaded, replace(self.settings, max_new_tokens=self.max_new_tokens or loaded.max_new_tokens)
