"""The texts that lm-eval hands about, as a model's training has them."""

from __future__ import annotations

from galpaca.data.records import Record
from galpaca.data.sequences import SPLIT_MARKER
from galpaca.inference.loading import Loaded


class Contexts:
    """What lm-eval's contexts are made of: an instruction in the model's template, or the plain text of a task.

    lm-eval hands texts about, and a text does not say where its fields end, so those that were put into the template
    are remembered.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._known: dict[str, tuple[str, str]] = {}

    def add(self, instruction: str, answer_start: str) -> str:
        """The context of an instruction, with what the task puts at the head of the answer."""
        [prompt] = self._loaded.template.prompts(Record.of(instruction))
        self._known[prompt + answer_start] = instruction, answer_start
        return prompt + answer_start

    def begin_themselves(self, context: str) -> bool:
        """Whether a context has its first token: the template writes it, or the task does."""
        if context in self._known:
            return self._loaded.template.end_text is not None
        reader = self._loaded.tokenizer
        return context.startswith(reader.whole_text([reader.boundary_id]))

    def ids(self, context: str, bare: bool | None) -> list[int]:
        """The ids of a context, with nothing behind it: sequences marked field by field, as in training.

        Args:
            bare: nothing is put in front; None where the text decides.
        """
        bare = self.begin_themselves(context) if bare is None else bare
        return self._loaded.tokenizer.encode([self.pair(context, "")[1]], bare=bare)[0]

    def pair(self, context: str, continuation: str) -> tuple[str, str]:
        """The context, and the whole, as they go into the tokenizer. The continuation goes on with a sequence that is
        open in the context, as an answer does in training. Spaces between the two belong to the continuation, since
        they begin a word.
        """
        mark, written = self._loaded.tokenizer.mark, self._loaded.encoder.written
        if context in self._known:
            instruction, answer_start = map(written, self._known[context])
            [prompt] = self._loaded.template.prompts(Record.of(mark(instruction)))
            answer = mark(answer_start + written(continuation), before=(instruction,))
            return prompt + _head(answer, len(answer_start.rstrip())), prompt + answer
        before = written(context.rstrip())
        rest = written(context[len(context.rstrip()) :] + continuation)
        return mark(before), mark(before) + mark(rest, before=(before,))


def _head(marked: str, num_characters: int) -> str:
    """The head of a marked text that has so many characters without the markers."""
    parts = []
    for part in marked.split(SPLIT_MARKER):
        parts.append(part[:num_characters])
        num_characters -= len(part)
        if num_characters <= 0:
            break
    return SPLIT_MARKER.join(parts)
