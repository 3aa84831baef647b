"""Batched generation with the prompt template and sequence splitting of training."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import GenerationConfig

from galpaca.data.records import Record
from galpaca.errors import GalpacaError, Problems
from galpaca.inference.loading import Loaded
from galpaca.inference.sampling import AnswerId, processors
from galpaca.inference.settings import Settings

Finish = Literal["end", "length", "positions", "stopped"]


@dataclass(frozen=True)
class Answer:
    """A generated answer.

    Attributes:
        answer_id: identifies the answer.
        text: its text with citations, molecules and ``<work>``, without end and padding tokens.
        finish: ``end`` as the model meant it; ``length`` truncated after ``max_new_tokens``; ``positions`` truncated
            where the model's positions end; ``stopped`` by a person.
        prompt_tokens: tokens of the prompt.
        answer_tokens: tokens of the answer, without the end token.
    """

    answer_id: AnswerId
    text: str
    finish: Finish
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class AnswerRequest:
    """A prompt, and which of its answers to generate."""

    answer_id: AnswerId
    ids: list[int]


@dataclass(frozen=True)
class Batch:
    """Prompts that are batched together.

    Attributes:
        max_new_tokens: most tokens of their answers.
        limited: the model's positions leave no more.
    """

    requests: list[AnswerRequest]
    max_new_tokens: int
    limited: bool


def answer(
    loaded: Loaded,
    questions: Sequence[Record],
    settings: Settings,
    *,
    batch_size: int = 16,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """Answers each question.

    Args:
        batch_size: prompts per batch; prompts of similar length are batched together.
        progress: called with the number of answers so far.

    Returns:
        In the order of the questions, ``settings.num_samples`` answers to each.

    Raises:
        InputError: prompts longer than the model's context; all reported at once.
        GalpacaError: GPU out of memory.
    """
    prompts = loaded.prompt_ids(questions)
    check_lengths(prompts, loaded.positions, [f"question {number}" for number in range(1, len(prompts) + 1)])
    found: list[Answer] = []
    for answers in answer_batches(loaded, wanted(prompts, settings.num_samples), settings, batch_size):
        found += answers
        progress(len(found))
    return sorted(found, key=lambda one: one.answer_id)


def wanted(prompts: Sequence[list[int]], num_samples: int) -> list[AnswerRequest]:
    """Every answer to generate for these prompts."""
    samples = range(num_samples)
    return [AnswerRequest(AnswerId(index, sample), ids) for index, ids in enumerate(prompts) for sample in samples]


def check_lengths(prompts: Sequence[list[int]], positions: int | None, wheres: Sequence[str]) -> None:
    """Checks that every prompt leaves room for an answer.

    Raises:
        InputError: prompts that fill the model's context; all reported at once.
    """
    with Problems() as problems:
        for ids, where in zip(prompts, wheres, strict=True):
            if positions is not None and len(ids) >= positions:
                problems.add(
                    f"the prompt has {len(ids):,} tokens, but the context length, answer included, is {positions:,}",
                    where=where,
                    fix=f"shorten the instruction or the input to {positions - 1:,} tokens or fewer",
                )


def answer_batches(
    loaded: Loaded, requests: Sequence[AnswerRequest], settings: Settings, batch_size: int
) -> Iterator[list[Answer]]:
    """Answers batch by batch, longest prompts first, so that running out of memory shows at the start."""
    for batch in batches(requests, settings.max_new_tokens, loaded.positions, batch_size):
        yield answer_batch(loaded, batch, settings)


def batches(
    requests: Sequence[AnswerRequest], max_new_tokens: int, positions: int | None, batch_size: int
) -> Iterator[Batch]:
    """Batches of like length. Prompts that leave less room than an answer may need share one only with their like, so
    that no answer is truncated for its neighbour's sake.
    """
    longest_first = sorted(requests, key=lambda one: (-len(one.ids), one.answer_id))
    for room, group in itertools.groupby(longest_first, lambda one: _room(one, max_new_tokens, positions)):
        members = list(group)
        for start in range(0, len(members), batch_size):
            yield Batch(members[start : start + batch_size], room, room < max_new_tokens)


def _room(request: AnswerRequest, max_new_tokens: int, positions: int | None) -> int:
    return max_new_tokens if positions is None else min(max_new_tokens, positions - len(request.ids))


@torch.inference_mode()
def answer_batch(loaded: Loaded, batch: Batch, settings: Settings, **further: Any) -> list[Answer]:
    """Answers one batch.

    Args:
        further: further arguments of ``generate``, such as a streamer.

    Raises:
        GalpacaError: GPU out of memory.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    longest = max(len(one.ids) for one in batch.requests)
    # Padding stands at the left, so that all answers begin in one column; OPT counts positions from the mask.
    ids = torch.full((len(batch.requests), longest), tokenizer.pad_id)
    num_padding = torch.tensor([longest - len(one.ids) for one in batch.requests])
    for row, one in enumerate(batch.requests):
        ids[row, longest - len(one.ids) :] = torch.tensor(one.ids)
    mask = (torch.arange(longest) >= num_padding[:, None]).long()
    try:
        output = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=_greedy(loaded, batch),
            logits_processor=processors(settings, [one.answer_id for one in batch.requests], num_padding),
            **further,
        )
    except torch.OutOfMemoryError:
        raise GalpacaError(
            f"GPU out of memory for {len(batch.requests)} prompts of {longest:,} tokens and their answers",
            where="--batch-size",
            fix=f"--batch-size {max(1, len(batch.requests) // 2)}, or a smaller --max-new-tokens; earlier answers stay",
        ) from None
    rows = output[:, longest:].tolist()
    return [_answer(loaded, batch, one, row) for one, row in zip(batch.requests, rows, strict=True)]


def _greedy(loaded: Loaded, batch: Batch) -> GenerationConfig:
    """All that decides is said, since what is left open is filled with the model's own defaults."""
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=batch.max_new_tokens,
        eos_token_id=list(loaded.ends),
        pad_token_id=loaded.tokenizer.pad_id,
    )


def _answer(loaded: Loaded, batch: Batch, request: AnswerRequest, ids: list[int]) -> Answer:
    finish: Finish
    ends = loaded.ends
    end = next((index for index, token in enumerate(ids) if token in ends), None)
    if end is not None:
        ids, finish = ids[:end], "end"
    elif len(ids) < batch.max_new_tokens:
        finish = "stopped"
    else:
        finish = "positions" if batch.limited else "length"
    return Answer(request.answer_id, loaded.encoder.text_of(ids), finish, len(request.ids), len(ids))
