"""Greedy answers, a batch at a time, with the template and the sequence splitting of training."""

from collections.abc import Sequence
from typing import Any

import torch

from galpaca.data.prompts import Template
from galpaca.data.tokenizer import Tokenizer


@torch.inference_mode()
def answer(
    model: Any,
    tokenizer: Tokenizer,
    template: Template,
    questions: Sequence[tuple[str, str]],
    *,
    max_new_tokens: int,
    batch_size: int = 20,
) -> list[str]:
    """Answers each (instruction, input) greedily.

    Args:
        model: an OPT model of ``transformers`` with its own attention, in eval mode.
        max_new_tokens: after which an answer is cut.
        batch_size: questions at a time; those of like length go together.

    Returns:
        The answers' texts, in the order of the questions.
    """
    prompts = tokenizer.encode([tokenizer.mark(template.prompt(*question)) for question in questions])
    answers = [""] * len(questions)
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(by_length), batch_size):
        chosen = by_length[start : start + batch_size]
        longest = max(len(prompts[i]) for i in chosen)
        ids = torch.full((len(chosen), longest), tokenizer.pad_id)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(chosen):
            ids[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, longest - len(prompts[i]) :] = 1
        output = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.eos_id,
            pad_token_id=tokenizer.pad_id,
        )
        for row, i in enumerate(chosen):
            answers[i] = tokenizer.decode(output[row, longest:].tolist()).strip()
    return answers
