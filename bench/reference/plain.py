"""``python -m bench.reference.plain JOB.json STEPS.jsonl``: the same training, as anyone would write it.

Examples of a micro-batch are padded to its longest one; the model computes the loss from labels, as ``transformers``
does it; torch's own AdamW, warm-up and cosine of ``transformers``. No dropout, whose numbers depend on the packing.
Which examples a step has, and the template, are those of ``examples/flat_loop.py``, which knows nothing of galpaca
either.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, OPTForCausalLM, get_cosine_schedule_with_warmup

from examples.flat_loop import NO_TARGET, WITH_INPUT, WITHOUT_INPUT, Recipe, examples_of_step, split_sequences

PAD_ID = 1


@dataclass(frozen=True)
class Job:
    """What to train.

    Attributes:
        model: folder or Hub id, with its tokenizer.
        records: a JSON file in Alpaca's format, or a Hub id of a data set with its columns.
        autocast: dtype of products, ``bfloat16``; empty for float32 throughout.
        per_micro_batch: examples.
    """

    model: str
    records: str
    device: str
    autocast: str
    num_steps: int
    max_length: int
    examples_per_step: int
    lr: float
    seed: int
    per_micro_batch: int


def load_records(source: str) -> list[dict[str, str]]:
    """All records, in the order of their source."""
    if Path(source).is_file():
        content: list[dict[str, str]] = json.loads(Path(source).read_text(encoding="utf-8"))
        return content
    from datasets import load_dataset

    return [dict(row) for row in load_dataset(source, split="train")]


def encode(records: Sequence[dict[str, str]], tokenizer: Any, max_length: int) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of each record: prompt and answer as one text, truncated; no label on the prompt's tokens."""
    prompts, texts = [], []
    for record in records:
        fields = {name: split_sequences(record.get(name) or "") for name in ("instruction", "input", "output")}
        prompts.append((WITH_INPUT if fields["input"] else WITHOUT_INPUT).format_map(fields))
        texts.append(prompts[-1] + fields["output"] + "</s>")
    whole, alone = (tokenizer(some, truncation=True, max_length=max_length)["input_ids"] for some in (texts, prompts))
    return [(ids, [NO_TARGET] * len(prompt) + ids[len(prompt) :]) for ids, prompt in zip(whole, alone, strict=True)]


def padded(examples: Sequence[tuple[list[int], list[int]]], device: str) -> dict[str, Tensor]:
    """Rows of equal length, filled up at the right."""
    longest = max(len(ids) for ids, _ in examples)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for ids, labels in examples:
        room = longest - len(ids)
        rows["input_ids"].append(ids + [PAD_ID] * room)
        rows["attention_mask"].append([1] * len(ids) + [0] * room)
        rows["labels"].append(labels + [NO_TARGET] * room)
    return {name: torch.tensor(content, device=device) for name, content in rows.items()}


def num_targets(examples: Sequence[tuple[list[int], list[int]]]) -> int:
    """The first token of an example is predicted by nothing."""
    return sum(label != NO_TARGET for _, labels in examples for label in labels[1:])


def train(
    model: OPTForCausalLM, examples: Sequence[tuple[list[int], list[int]]], job: Job
) -> Iterator[dict[str, float]]:
    """Trains the model in place; loss, gradient norm, learning rate, tokens and target tokens of each step."""
    recipe = Recipe(examples_per_step=job.examples_per_step, seed=job.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.lr, weight_decay=0.0)
    warm_up = math.ceil(recipe.warmup_ratio * job.num_steps)
    schedule = get_cosine_schedule_with_warmup(optimizer, warm_up, job.num_steps)
    for k in range(job.num_steps):
        step = [examples[i] for i in examples_of_step(k, len(examples), recipe)]
        targets, loss = num_targets(step), 0.0
        optimizer.zero_grad()
        for at in range(0, len(step), job.per_micro_batch):
            some = step[at : at + job.per_micro_batch]
            if share := num_targets(some) / targets:
                with _precision(job):
                    mean = model(**padded(some, job.device)).loss
                (mean * share).backward()
                loss += float(mean.detach()) * share
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        yield {
            **{"step": k + 1, "loss": loss, "grad_norm": float(grad_norm), "lr": schedule.get_last_lr()[0]},
            **{"tokens": sum(len(ids) for ids, _ in step), "target_tokens": targets},
        }
        optimizer.step()
        schedule.step()


def _precision(job: Job) -> AbstractContextManager[Any]:
    if not job.autocast:
        return nullcontext()
    return torch.autocast(job.device.partition(":")[0], getattr(torch, job.autocast))


def main(job_path: str, out: str) -> None:
    job = Job(**json.loads(Path(job_path).read_text(encoding="utf-8")))
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    examples = encode(load_records(job.records), tokenizer, job.max_length)
    # In float32 whatever the files hold: GALACTICA's are float16, in which an update of 2e-5 would be lost.
    config = AutoConfig.from_pretrained(job.model)
    config.dropout = config.attention_dropout = config.activation_dropout = config.layerdrop = 0.0
    model = OPTForCausalLM.from_pretrained(job.model, config=config, dtype=torch.float32)
    model = model.to(job.device).train()  # type: ignore[arg-type]  # its decorator lost `self`
    with Path(out).open("w", encoding="utf-8", buffering=1) as file:
        for line in train(model, examples, job):
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
