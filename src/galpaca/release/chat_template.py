"""The prompt template as a chat template of ``transformers``: the encoder's own text, for other programs."""

import json
import string
from importlib import resources
from typing import Any

from galpaca.data.prompt_file import PromptFile
from galpaca.data.scripts import script_tables
from galpaca.data.sequences import KINDS, SPLIT_MARKER
from galpaca.data.tokenizer import Tokenizer


def chat_template(prompts: PromptFile, tokenizer: Tokenizer) -> str:
    """A Jinja template that makes of messages the text that the model was trained on: the tokenizer's own, its date
    pinned, where that was the prompt template.

    Raises:
        InputError: the tokenizer's is not the one of the training.
    """
    bound = prompts.template.bound(tokenizer)
    return bound.jinja if bound.jinja is not None else _of_texts(prompts, bound, tokenizer)


def _of_texts(prompts: PromptFile, template: Any, tokenizer: Tokenizer) -> str:
    """A Jinja template of a template's texts, the split marker included.

    The user's message may have a key ``input`` beside its ``content``.
    """
    sup, sub = script_tables() if prompts.scripts == "galactica" else ({}, {})
    values: dict[str, Any] = {
        "with_input": _pieces(template.with_input),
        "without_input": _pieces(template.without_input),
        "turn": _pieces(template.turn) if prompts.keeps_turns else None,
        "system": _pieces(template.system) if prompts.keeps_turns else None,
        "kinds": KINDS if prompts.splits_sequences else [],
        "marker": SPLIT_MARKER,
        "sup": sup,
        "sub": sub,
        # What the tokenizer puts in front of a text it does not put in front of a chat.
        "in_front": tokenizer.hf.decode(tokenizer.encode([""])[0]),
    }
    head = [f"{{%- set {name} = {_literal(value)} -%}}" for name, value in values.items()]
    body = resources.files("galpaca.release") / "assets" / "chat_template.jinja"
    return "\n".join([*head, body.read_text(encoding="utf-8")])


def _pieces(text: str | None) -> list[list[str]] | None:
    """A template's text as pairs: what stands there, and the name of the field behind it."""
    if text is None:
        return None
    return [[literal, name or ""] for literal, name, _, _ in string.Formatter().parse(text)]


def _literal(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
