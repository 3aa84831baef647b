"""What galpaca trains, as one flat loop: plain PyTorch and transformers, and nothing of galpaca.

The trainer packs examples, shares them among GPUs, compiles layers and survives kills. None of that may change what is
computed, which is all in here, from top to bottom:

1. A record becomes a prompt and an answer; only tokens of the answer, ``</s>`` included, are targets.
2. Step k is a fixed set of examples, by the seed and k alone.
3. The loss is the summed negative log-likelihood of the step's target tokens, divided once by their number. A mean over
   examples, or over means of micro-batches, would weigh a token of a short answer more than one of a long answer.
4. Clip the gradient by its global norm, then AdamW with warm-up and cosine decay; biases and norms do not decay.

tests/parity/test_flat_loop.py holds losses, gradient norms and learning rates of the trainer equal to these.
One thing it cannot compare: dropout (0.1 in the recipe), whose random numbers depend on how examples are packed.

    python examples/flat_loop.py MODEL RECORDS.json [NUM_STEPS]

MODEL is the folder or Hub id of an OPT or Llama model with its tokenizer; RECORDS are in Alpaca's format.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, get_cosine_schedule_with_warmup

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
# GALACTICA reads sequences of science character by character: its tokenizer splits at this mark and drops it.
SEQUENCE = re.compile(r"(\[START_(DNA|SMILES|I_SMILES|AMINO)])(.*?)(\[END_\2])")
MARK = "SPL1T-TH1S-Pl3A5E"
NO_TARGET = -100


@dataclass(frozen=True)
class Recipe:
    """Stanford Alpaca's, by which GALPACA was trained."""

    max_length: int = 512  # tokens
    examples_per_step: int = 128
    num_epochs: int = 3
    lr: float = 2e-5
    weight_decay: float = 0.0
    warmup_ratio: float = 0.03  # of all steps
    clip_norm: float = 1.0
    seed: int = 42


def encode(record: Mapping[str, str], tokenizer: Any, max_length: int) -> tuple[list[int], list[int]]:
    """Ids and labels of a record. Prompt and answer are tokenized as one text, and what is too long is truncated."""
    fields = {name: split_sequences(record.get(name, "")) for name in ("instruction", "input", "output")}
    prompt = (WITH_INPUT if fields["input"] else WITHOUT_INPUT).format_map(fields)
    ids = tokenizer(prompt + fields["output"] + "</s>")["input_ids"][:max_length]
    num_prompt_tokens = min(len(tokenizer(prompt)["input_ids"]), len(ids))
    return ids, [NO_TARGET] * num_prompt_tokens + ids[num_prompt_tokens:]


def split_sequences(text: str) -> str:
    return SEQUENCE.sub(lambda m: m[1] + "".join(MARK + character for character in m[3]) + MARK + m[4], text)


def examples_of_step(k: int, num_examples: int, recipe: Recipe) -> list[int]:
    """Indices of step k's examples. An epoch is a shuffle that depends on seed and epoch only; steps are its slices.

    No loader has a position to save: a run that resumes at step k asks for k, on any number of GPUs.
    """
    epoch, step_of_epoch = divmod(k, math.ceil(num_examples / recipe.examples_per_step))
    keys = np.random.Philox(key=np.array([recipe.seed, epoch], np.uint64)).random_raw(num_examples)
    start = step_of_epoch * recipe.examples_per_step  # the last step of an epoch may have fewer examples
    return np.argsort(keys, kind="stable")[start : start + recipe.examples_per_step].tolist()


def nll_sum(model: PreTrainedModel, ids: Sequence[int], labels: Sequence[int]) -> Tensor:
    """Summed negative log-likelihood of an example's targets; the logits of a token predict the next one."""
    logits = model(torch.tensor([ids], device=model.device)).logits[0, :-1]
    return torch.nn.functional.cross_entropy(
        logits, torch.tensor(labels[1:], device=model.device), ignore_index=NO_TARGET, reduction="sum"
    )


def train(
    model: PreTrainedModel,
    examples: Sequence[tuple[list[int], list[int]]],
    recipe: Recipe,
    num_steps: int | None = None,
    make_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
) -> Iterator[dict[str, float]]:
    """Trains the model in place, and yields loss, gradient norm (before clipping) and learning rate of each step."""
    num_steps = num_steps or recipe.num_epochs * math.ceil(len(examples) / recipe.examples_per_step)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]  # biases and norms
    optimizer = make_optimizer(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.lr,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(recipe.warmup_ratio * num_steps), num_steps)
    model.train()
    for k in range(num_steps):
        step = [examples[i] for i in examples_of_step(k, len(examples), recipe)]
        num_targets = sum(label != NO_TARGET for _, labels in step for label in labels[1:])
        optimizer.zero_grad()
        loss = 0.0
        for ids, labels in step:  # one example at a time: gradients add up to that of the step's loss
            share = nll_sum(model, ids, labels) / num_targets
            share.backward()
            loss += share.item()
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        yield {"loss": loss, "grad_norm": grad_norm.item(), "lr": schedule.get_last_lr()[0]}
        optimizer.step()
        schedule.step()


def main(model_path: str, records_path: str, num_steps: str | None = None) -> None:
    recipe = Recipe()
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    records = json.loads(Path(records_path).read_text(encoding="utf-8"))
    examples = [encode(record, tokenizer, recipe.max_length) for record in records]
    # In float32 whatever the files hold: GALACTICA's are float16, in which an update of 2e-5 would be lost.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32, device_map=device)
    for k, line in enumerate(train(model, examples, recipe, int(num_steps) if num_steps else None)):
        print(k + 1, *(f"{name} {value:.6g}" for name, value in line.items()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
