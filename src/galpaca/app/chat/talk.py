"""The event handlers of the chat page."""

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from galpaca.app.chat.terminal import saved_turn, summary
from galpaca.data.records import Record, Turn
from galpaca.errors import GalpacaError, InputErrors
from galpaca.inference.answer_formats import json_lines
from galpaca.inference.conversation import next_question
from galpaca.inference.loading import Loaded
from galpaca.inference.settings import Settings
from galpaca.inference.stream import Stream

# The page shows code as it stands.
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)
# Of a block, its language: the page's highlighter stumbles over some, and then shows nothing at all.
_LANGUAGE = re.compile(r"\A```[^\n`]*")
# ``<work>`` and the like: the page would take them for tags and drop them.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
# The page would fetch an image from wherever the model says.
_IMAGE = re.compile(r"!(?=\[)")

Message = dict[str, Any]


class Shown(NamedTuple):
    """What the page shows.

    Attributes:
        talk: history of questions and answers.
        note: status line below the history.
        prompt: the prompt as the model sees it, followed by the answer as generated.
        box: what the box of the instruction holds; None leaves what may have been typed since.
        saved: finished questions and answers as JSON Lines; None for no change.
    """

    talk: list[Message]
    note: str
    prompt: str
    box: str | None = None
    saved: str | None = None


class Conversations:
    """One conversation per open page. The model answers one question at a time."""

    def __init__(self, loaded: Loaded, settings: Settings) -> None:
        self._loaded, self._settings = loaded, settings
        self._stops: dict[str, threading.Event] = {}
        self._numbers: dict[str, int] = {}
        self._histories: dict[str, list[Turn]] = {}
        self._saved: dict[str, list[dict[str, Any]]] = {}

    def ask(self, page: str, question: tuple[str, str], talk: list[Message], values: dict[str, Any]) -> Iterator[Shown]:
        """Yields what the page shows while the answer is generated.

        Args:
            page: id of the open page.
            talk: earlier questions and answers.
            values: values of the page's controls, by setting.
        """
        if not question[0]:
            yield Shown(talk, "Enter an instruction first.", "")
            return
        stop = self._stops[page] = threading.Event()
        number = self._numbers[page] = self._numbers.get(page, -1) + 1
        started = time.monotonic()
        prompt, text = "", ""
        history = self._histories[page] = self._histories.get(page, []) if talk else []
        saved = self._saved[page] = self._saved.get(page, []) if talk else []
        conversation = [*talk, _message("user", "\n\n".join(filter(None, question))), _message("assistant", "")]
        try:
            asked, _ = next_question(self._loaded, history, *question)
            chosen = self._chosen(values)
            stream = Stream(self._loaded, asked, chosen, number=number, stop=stop)
            prompt = self.prompt(asked)
            yield Shown(conversation, "Reading the prompt …", prompt, box="")
            for piece in stream:
                text += piece
                yield Shown([*conversation[:-1], _message("assistant", text)], "Generating …", prompt + text)
        except GalpacaError as error:
            yield Shown(conversation[:-1] if text else talk, _sentence(error), prompt + text, box=question[0])
            return
        answer = stream.answer
        assert answer is not None
        turn = Turn(*question, answer.text)
        history.append(turn)
        saved.append(saved_turn(turn, answer, self._loaded, chosen))
        note = summary(answer, time.monotonic() - started).strip("()")
        whole = [*conversation[:-1], _message("assistant", answer.text)]
        yield Shown(whole, note, prompt + answer.text, saved=json_lines(saved))

    def stop(self, page: str) -> None:
        if stop := self._stops.get(page):
            stop.set()

    def leave(self, page: str) -> None:
        """Stops the answer of a page that was closed."""
        self.stop(page)
        self._stops.pop(page, None)
        self._numbers.pop(page, None)
        self._histories.pop(page, None)
        self._saved.pop(page, None)

    def prompt(self, question: Record) -> str:
        """The prompt as the model sees it, after the tokenizer's normalization."""
        return self._loaded.prompt_text(self._loaded.prompt_ids([question])[0])

    def _chosen(self, values: dict[str, Any]) -> Settings:
        """The page's values; those of draws count only where there are draws, and an empty field is the default."""
        given = {name: value for name, value in values.items() if value is not None}
        for name in ("max_new_tokens", "top_k", "seed"):
            if name in given:
                given[name] = int(given[name])
        if not given.get("temperature"):
            given |= {"top_p": 1.0, "top_k": 0}
        chosen = replace(self._settings, **given, num_samples=1)
        chosen.check()
        return chosen


def _message(role: str, text: str) -> Message:
    return {"role": role, "content": page_text(text)}


def page_text(text: str) -> str:
    """A text as the page is given it, so that it shows all of it and asks no other host."""
    parts = _CODE.split(text)
    parts[::2] = [_IMAGE.sub("&#33;", _TAG.sub("&lt;", part)) for part in parts[::2]]
    parts[1::2] = [_LANGUAGE.sub("```", part) for part in parts[1::2]]
    return "".join(parts)


def _sentence(error: GalpacaError) -> str:
    problems = error.problems if isinstance(error, InputErrors) else (error,)
    return " ".join(f"{problem.where}: {problem.what} ({problem.fix})." for problem in problems)
