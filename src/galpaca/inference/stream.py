"""One answer, piece by piece, while the model still writes."""

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from galpaca.data.records import Record
from galpaca.data.scripts import from_tags
from galpaca.inference.answer import Answer, AnswerRequest, answer_batch, batches, check_lengths
from galpaca.inference.loading import Loaded
from galpaca.inference.sampling import AnswerId
from galpaca.inference.settings import Settings


class Stream:
    """Pieces of an answer; iterate over it once.

    Args:
        number: index of the question in its chat, so that asking again gives another sample.
        stop: when set, ends the answer at the next token.

    Attributes:
        answer: the complete answer, after the iteration.

    Raises:
        InputError: the prompt exceeds the model's context length.
    """

    def __init__(
        self,
        loaded: Loaded,
        question: Record,
        settings: Settings,
        *,
        number: int = 0,
        stop: threading.Event | None = None,
    ) -> None:
        self.answer: Answer | None = None
        self._loaded, self._settings, self._ends = loaded, settings, loaded.ends
        self._stop = stop or threading.Event()
        [ids] = loaded.prompt_ids([question])
        check_lengths([ids], loaded.positions, ["the question"])
        requests = [AnswerRequest(AnswerId(number, 0), ids)]
        [self._batch] = batches(requests, settings.max_new_tokens, loaded.positions, 1)
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[str]:
        # Not the tokenizer itself: the streamer would have it drop citations, or show the end.
        decoder = SimpleNamespace(decode=lambda ids, **_: self._shown(ids))
        streamer = TextIteratorStreamer(decoder, skip_prompt=True)  # type: ignore[arg-type]
        thread = threading.Thread(target=self._generate, args=(streamer,), daemon=True)
        thread.start()
        shown = 0
        try:
            for piece in streamer:
                shown += len(piece)
                if piece:
                    yield piece
        finally:
            self._stop.set()  # whoever leaves early needs no more of it
            thread.join()
        if self._error is not None:
            raise self._error
        if self.answer is not None and (rest := self.answer.text[shown:]):
            yield rest

    def _shown(self, ids: Sequence[int]) -> str:
        """The text so far, without a script whose end tag may still come: with it, the text would change."""
        text = self._loaded.tokenizer.decode([i for i in ids if i not in self._ends])
        if self._loaded.scripts == "galactica" and (opened := text.rfind("[START_SU")) > text.rfind("[END_SU"):
            text = text[:opened]
        return from_tags(text) if self._loaded.scripts == "galactica" else text

    def _generate(self, streamer: TextIteratorStreamer) -> None:
        further = {"streamer": streamer, "stopping_criteria": StoppingCriteriaList([_Stopped(self._stop)])}
        try:
            [self.answer] = answer_batch(self._loaded, self._batch, self._settings, **further)
        except BaseException as error:  # raised again where the pieces are read
            self._error = error
            streamer.end()


class _Stopped(StoppingCriteria):
    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return input_ids.new_full((len(input_ids),), self._stop.is_set()).bool()
