"""The prompt templates that a recipe names, for its card and for papers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from galpaca.data.chat_template import CHAT_TEMPLATE
from galpaca.data.prompts import template_words


class NamedTemplate(NamedTuple):
    """A template as the configuration names it.

    Attributes:
        date: what a tokenizer's own takes for today; empty for one of texts, which knows none.
    """

    name: str
    date: str

    @classmethod
    def of(cls, name: Any, date: Any) -> "NamedTemplate":
        return cls(str(name), str(date) if name == CHAT_TEMPLATE else "")

    @property
    def words(self) -> str:
        return template_words(self.name, self.date)

    @property
    def short(self) -> str:
        return f"{self.name} ({self.date})" if self.date else self.name


def released_template(settings: Mapping[str, Any]) -> NamedTemplate:
    """The template of the released model's prompts.

    Raises:
        KeyError: the settings have none.
    """
    return NamedTemplate.of(settings["data.template"], settings["data.template_date"])


def used_templates(settings: Mapping[str, Any]) -> Sequence[NamedTemplate]:
    """The templates of the examples, the released model's first, where examples have it.

    Args:
        settings: of a recipe.

    Raises:
        KeyError, TypeError, AttributeError: they are damaged.
    """
    name, date = settings["data.template"], settings["data.template_date"]
    released = NamedTemplate.of(name, date)
    entries = settings.get("data.mix", {}).values()
    of_sources = [NamedTemplate.of(one.get("template", name), one.get("template_date", date)) for one in entries]
    used = dict.fromkeys(of_sources or [released])
    return sorted(used, key=lambda one: one != released)


def in_words(settings: Mapping[str, Any]) -> str:
    """The templates of the examples, and the released model's where it is none of them, for a sentence.

    Raises:
        KeyError, TypeError, AttributeError: as ``used_templates``.
    """
    return _with_released(settings, " and ".join(one.words for one in used_templates(settings)))


def in_short(settings: Mapping[str, Any]) -> str:
    """The same for a table."""
    return _with_released(settings, ", ".join(one.short for one in used_templates(settings)))


def _with_released(settings: Mapping[str, Any], text: str) -> str:
    released = released_template(settings)
    if released in used_templates(settings):
        return text
    return f"{text} (the released model is prompted by {released.short})"
