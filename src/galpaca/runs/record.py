"""``run.json``: what a run was made from, and its results."""

import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from galpaca.errors import InputError
from galpaca.files.atomic import replace_file
from galpaca.runs.provenance import utc_now
from galpaca.runs.recipe import Recipe
from galpaca.runs.record_fields import End, Outcome, RunContent, Start
from galpaca.runs.typed import decode, encode


class RunRecord:
    """Writes ``run.json``, whole after every change.

    Attributes:
        content: what is in it; of a run that is new, its id and time.
        is_new: there was no file of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = read_content(path)
        self.content = found or RunContent(id=uuid.uuid4().hex[:12], created=utc_now())
        self.is_new = found is None

    @property
    def recipe(self) -> Recipe:
        """The run's recipe, which ``take_recipe`` has set in this start or an earlier one."""
        assert self.content.recipe is not None
        return self.content.recipe

    def take_id(self, given: str, origin: str) -> None:
        """Makes an id the run's.

        Args:
            origin: where it comes from, in messages.

        Raises:
            InputError: it is none, or the run was started under another one.
        """
        if not re.fullmatch(r"[\w.-]+", given):
            what = f"{given!r} is no id of a run"
            raise InputError(what, where=origin, why="letters, digits and . _ - are", fix=f"unset {origin}")
        if not self.is_new and given != self.content.id:
            raise InputError(
                f"the run has the id {self.content.id}, not {given}",
                where=self.path.parent,
                why=f"{origin}={given}: a sweep's agent starts a new run",
                fix=f"run.name=ANOTHER for a new run; or unset {origin} WANDB_SWEEP_ID to resume this one",
            )
        self.set(id=given)

    def set(self, **entries: Any) -> None:
        """Changes fields of the content, to be written with the next update."""
        self.content = replace(self.content, **entries)

    def update(self, **entries: Any) -> None:
        """Changes fields of the content and writes it."""
        self.set(**entries)
        replace_file(self.path, json.dumps(encode(self.content), indent=2, ensure_ascii=False) + "\n")

    def add_start(self, start: Start) -> None:
        self.update(starts=(*self.content.starts, start))

    def update_start(self, **entries: Any) -> None:
        """Changes fields of the newest start and writes it."""
        *earlier, newest = self.content.starts
        self.update(starts=(*earlier, replace(newest, **entries)))

    def add_seconds(self, **seconds: float) -> None:
        """Adds durations of phases to the newest start."""
        rounded: Any = {name: round(value, 2) for name, value in seconds.items()}
        self.update_start(seconds=replace(self.content.last_start.seconds, **rounded))

    def end_start(self, how: Outcome, why: str, lost_output: Sequence[str] = ()) -> None:
        """Records how the newest start ended, and what of its output was lost. A killed run records nothing."""
        if self.content.starts:
            self.update_start(ended=End(time=utc_now(), how=how, why=why), lost_output=tuple(lost_output))

    def take_recipe(self, recipe: Recipe, *, accept_changes: bool = False) -> list[str]:
        """Compares a recipe with the one that the run was started with, and makes it the run's.

        Args:
            accept_changes: accept differences.

        Returns:
            The differences, where they are accepted; the earlier recipe is kept with the new one.

        Raises:
            InputError: they differ; every difference is shown.
        """
        started = self.content.recipe
        if started is None and not self.is_new:
            raise InputError(
                "records no recipe",
                where=self.path,
                why="the run may have been started with any other",
                fix="restore the file, or choose run.name=ANOTHER",
            )
        differences = recipe.changes_since(started) if started else []
        if differences and not accept_changes:
            raise InputError(
                "the run was started with a different recipe or different data",
                where=self.path.parent,
                why="; ".join(differences),
                fix="start a new run with run.name=ANOTHER, restore the old values to resume this one, or accept the "
                "new values with run.accept_changes=true (recorded in run.json)",
            )
        if started and differences:
            self.set(former_recipes=(*self.content.former_recipes, started))
        self.set(recipe=recipe)
        return differences

    def had_recipe(self, recipe: Recipe) -> bool:
        """Whether a recipe is the run's, or was before a change that was accepted."""
        known = (self.content.recipe, *self.content.former_recipes)
        return any(one is not None and not one.changes_since(recipe) for one in known)


def read_content(path: Path) -> RunContent | None:
    """The content of a ``run.json``; None if there is no such file.

    Raises:
        InputError: it is damaged.
    """
    try:
        return decode(RunContent, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(
            f"cannot be read: {error}",
            where=path,
            fix="restore the file, use the version of galpaca that wrote it, or choose run.name=ANOTHER",
        ) from None
