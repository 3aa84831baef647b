"""Runs of ``examples/flat_loop.py`` to compare the trainer with, and what makes a run comparable."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from families import PLAIN_OPT, Sizes, Tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.flat_loop import Recipe, encode, train

RECIPE = Recipe(max_length=64, examples_per_step=8, lr=3e-3, weight_decay=0.1, warmup_ratio=0.1, seed=11)
# The same recipe for ``train.py``, and no dropout, whose random numbers depend on how examples are packed.
OVERRIDES = (
    "model.dropout=0",
    f"data.max_length={RECIPE.max_length}",
    f"batch.examples={RECIPE.examples_per_step}",
    "batch.max_tokens=200",
    "trainer.max_epochs=100",
    f"optim.weight_decay={RECIPE.weight_decay}",
    f"optim.warmup_ratio={RECIPE.warmup_ratio}",
    f"seed={RECIPE.seed}",
)


def flat_run(
    model: Path,
    tokenizer: Path,
    records: Path,
    num_steps: int,
    *,
    dtype: torch.dtype = torch.float32,
    lr: float = RECIPE.lr,
    make_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
) -> list[dict[str, float]]:
    """Loss, gradient norm and learning rate of each step, from a model and a tokenizer in folders."""
    reader: Any = AutoTokenizer.from_pretrained(tokenizer)
    content = json.loads(records.read_text(encoding="utf-8"))
    examples = [encode(record, reader, RECIPE.max_length) for record in content]
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    return list(train(loaded, examples, replace(RECIPE, lr=lr), num_steps, make_optimizer))


def save_model(folder: Path, tokenizer_folder: Path, tiny: Tiny = PLAIN_OPT) -> Path:
    """A small model as ``transformers`` begins one, its weights float16 on disk as GALACTICA's are."""
    torch.manual_seed(1)
    vocabulary = len(AutoTokenizer.from_pretrained(tokenizer_folder))
    sizes = Sizes(vocabulary, hidden=64, ffn=128, layers=2, heads=4, positions=128)
    model: Any = AutoModelForCausalLM.from_config(tiny.config(sizes))
    model.half().save_pretrained(folder)
    return folder
