"""Sixty lines of plain PyTorch that pack nothing, shard nothing and know nothing of the project but its plan."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM, get_cosine_schedule_with_warmup

from galpaca.data.plan import StepPlan

EXAMPLES, SEED, MAX_LENGTH = 8, 11, 64
# What a run must be like to be compared with.
OVERRIDES = (
    "model.dropout=0.0",
    f"data.max_length={MAX_LENGTH}",
    f"batch.examples={EXAMPLES}",
    "batch.max_tokens=200",
    "trainer.max_epochs=100",
    "optim.weight_decay=0.1",
    "optim.warmup_ratio=0.1",
    f"seed={SEED}",
)

PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Response:"
)
PROMPT_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


def reference_run(
    model_folder: Path,
    tokenizer_folder: Path,
    records_file: Path,
    make_optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    num_steps: int,
) -> list[dict[str, float]]:
    """Loss, gradient norm and learning rate of each step.

    Args:
        make_optimizer: from two groups, with and without weight decay.
    """
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    model = OPTForCausalLM.from_pretrained(model_folder, dtype=torch.float32).train()
    examples = []
    for record in json.loads(records_file.read_text(encoding="utf-8")):
        prompt = (PROMPT_WITH_INPUT if record["input"] else PROMPT).format(**record)
        ids = torch.tensor(tokenizer(prompt + record["output"] + "</s>")["input_ids"][:MAX_LENGTH])
        labels = ids.clone()
        labels[: len(tokenizer(prompt)["input_ids"])] = -100
        examples.append((ids, labels))
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2]
    vectors = [p for name, p in model.named_parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = make_optimizer(groups)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.1 * num_steps), num_steps)
    # Which examples share a step is the plan's to say; nothing else is taken from the project.
    lengths = torch.tensor([len(ids) for ids, _ in examples]).numpy()
    plan = StepPlan(lengths, lengths, EXAMPLES, MAX_LENGTH, 1, SEED)
    lines = []
    for step in range(num_steps):
        chosen = [examples[i] for i in plan.step_examples(step)]
        num_targets = sum(int((labels[1:] != -100).sum()) for _, labels in chosen)
        optimizer.zero_grad()
        total = 0.0
        for ids, labels in chosen:
            logits = model(ids[None]).logits[0, :-1]
            nll = torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum")
            (nll / num_targets).backward()
            total += float(nll.detach())
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        lines.append({"loss": total / num_targets, "grad_norm": float(norm), "lr": optimizer.param_groups[0]["lr"]})
        optimizer.step()
        schedule.step()
    return lines


def save_model(folder: Path, tokenizer_folder: Path) -> Path:
    """A small OPT model of GALACTICA's kind, its weights float16 on disk as GALACTICA's are."""
    torch.manual_seed(1)
    config = OPTConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(tokenizer_folder)),
        hidden_size=64,
        word_embed_proj_dim=64,
        ffn_dim=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        activation_function="gelu",
        dropout=0.0,
        attention_dropout=0.0,
    )
    OPTForCausalLM(config).half().save_pretrained(folder)
    return folder
