"""The sample questions that a model answers during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from galpaca.app.config.schema import Config
from galpaca.app.train.data import PreparedData
from galpaca.data.asked import asked, spread
from galpaca.data.encoding import RecordEncoder
from galpaca.data.questions import EncodedQuestions, Question, load_questions
from galpaca.data.sources.files import open_files
from galpaca.errors import Problems
from galpaca.runs.folder import RunFolder
from galpaca.runs.lines import SampleLine
from galpaca.runs.metrics import append_lines

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


# As ``samples.prompts``: questions of the data itself.
HELD_OUT = "held_out"
_NUM_QUESTIONS = 8


@dataclass(frozen=True)
class Samples:
    """Sample questions, tokenized.

    Attributes:
        questions: the questions as in the file.
        encoded: the same as token ids.
        encoder: the model's.
    """

    questions: Sequence[Question]
    encoded: EncodedQuestions
    encoder: RecordEncoder

    def write(self, folder: RunFolder, loggers: Sequence[Logger], step: int, answers: Sequence[Sequence[int]]) -> None:
        """Saves all answers of a step, and passes them to loggers with ``log_samples``."""
        rows = [
            SampleLine(
                step=step,
                category=str(question.row.get("category", "")),
                instruction=question.instruction,
                input=question.input,
                answer=self.encoder.text_of([i for i in ids if i not in self.encoded.end_ids]).strip(),
            )
            for question, ids in zip(self.questions, answers, strict=True)
        ]
        append_lines(folder.samples, rows)
        for logger in loggers:
            if hasattr(logger, "log_samples"):
                logger.log_samples(step, rows)


def _of_records(data: PreparedData, max_positions: int) -> Samples:
    """Questions of held-out records; of training where none is held out. In a mix, of those that are prompted as the
    released model is; a mix of templates of texts may have none, and shows what it has.
    """
    sides = [side for side in (data.split.val, data.split.train) if len(side)]
    in_form = [shown for side in sides if len(shown := side[data.in_released_form[side]])]
    [side, *_] = in_form or sides
    found = asked(data.split.examples, spread(side, _NUM_QUESTIONS), data.tokenizer, data.template)
    found = [one for one in found if len(one.ids) < max_positions]
    questions = [Question(one.record, f"record {one.index + 1:,}", {}) for one in found]
    encoded = EncodedQuestions([one.ids for one in found], data.end_ids, max_positions)
    return Samples(questions, encoded, data.encoder)


def load_samples(config: Config, data: PreparedData, max_positions: int) -> Samples | None:
    """Loads the questions of ``samples.prompts``; None if it is not set.

    Raises:
        InputError: an invalid file, or prompts that leave no room for an answer.
    """
    if config.samples.prompts is None:
        return None
    if config.samples.prompts == HELD_OUT:
        return _of_records(data, max_positions)
    questions = load_questions(open_files(config.samples.prompts), reserved=("answer", "step"))
    prompts = data.encoder.prompt_ids([one.record for one in questions])
    with Problems() as problems:
        for question, ids in zip(questions, prompts, strict=True):
            if len(ids) >= max_positions:
                problems.add(
                    f"the prompt has {len(ids)} tokens, but the context length, answer included, is {max_positions}",
                    where=question.where,
                    fix="shorten it, or samples.prompts=null for no samples",
                )
    return Samples(questions, EncodedQuestions(prompts, data.end_ids, max_positions), data.encoder)
