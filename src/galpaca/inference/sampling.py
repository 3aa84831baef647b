"""Draws of tokens that depend on nothing but the seed, the prompt's number and the sample's.

``transformers`` draws for a whole batch from one stream of random numbers, so that a prompt's answer depends on its
neighbours. Here every answer has a stream of its own: one number a token, turned into a token by the cumulative
probabilities. The processors below run last in a greedy ``generate``, whose choice the last of them leaves one token.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation import logits_process

from galpaca.inference.settings import Settings

# Below 2^53: times a sum of probabilities, the largest draw must not be rounded up to that sum.
_DRAW_BITS = 32


class AnswerId(NamedTuple):
    """Identifies one answer among all.

    Attributes:
        prompt: index of the prompt.
        sample: index of the sample among the prompt's answers.
    """

    prompt: int
    sample: int


def processors(settings: Settings, answer_ids: Sequence[AnswerId], num_padding: Tensor) -> LogitsProcessorList:
    """The logits processors that apply the sampling settings.

    Args:
        answer_ids: the answer that each row of the batch generates.
        num_padding: (rows,) tokens of padding at its left.
    """
    found = LogitsProcessorList()
    if settings.repetition_penalty != 1:
        found.append(RepetitionPenalty(settings.repetition_penalty, num_padding))
    if settings.samples:
        found.append(logits_process.TemperatureLogitsWarper(settings.temperature))
        if settings.top_k:
            found.append(logits_process.TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            found.append(logits_process.TopPLogitsWarper(settings.top_p))
        found.append(SeededSampling(settings.seed, answer_ids))
    return found


class RepetitionPenalty(LogitsProcessor):
    """That of ``transformers``, which would punish the padding too, and with it a model whose end is its padding."""

    def __init__(self, penalty: float, num_padding: Tensor) -> None:
        self._penalty = logits_process.RepetitionPenaltyLogitsProcessor(penalty)
        self._num_padding = num_padding

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        num_padding = self._num_padding.to(input_ids.device)[:, None]
        is_padding = torch.arange(input_ids.shape[1], device=input_ids.device) < num_padding
        first = input_ids.gather(1, num_padding)
        return self._penalty(torch.where(is_padding, first, input_ids), scores)


class SeededSampling(LogitsProcessor):
    """Samples one token per row and masks all others."""

    def __init__(self, seed: int, answer_ids: Sequence[AnswerId]) -> None:
        # Of a text the generator makes the same stream on every machine.
        self._streams = [random.Random(f"{seed} {prompt} {sample}") for prompt, sample in answer_ids]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        cumulative = scores.double().softmax(-1).cumsum(-1)
        drawn = [stream.getrandbits(_DRAW_BITS) / 2**_DRAW_BITS for stream in self._streams]
        at = torch.tensor(drawn, dtype=torch.float64, device=scores.device)[:, None] * cumulative[:, -1:]
        # The first token whose sum is above: one without probability never is.
        chosen = torch.searchsorted(cumulative, at, right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)
