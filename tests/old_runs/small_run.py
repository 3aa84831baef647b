"""A small run: its files, and its command line as an earlier commit took it and as the present code takes it.

Whoever renames a key of the configuration, or replaces it, adds a line to ``NOW``.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent

# Runs that this commit started must always resume.
COMMIT = "51e9e50"

# What happens in a run: dropout, several micro-batches per step, validations, samples, checkpoints before and after the
# middle, truncated answers. ``optim.eps`` is above what rounding alone puts into a gradient that is 0 by arithmetic
# (of the keys' biases): without it, such weights would differ between machines by as much as the learning rate.
THEN = (
    "model=tiny",
    "model.hidden_size=8",
    "model.num_heads=2",
    "model.ffn_size=16",
    "model.max_positions=128",
    "model.dropout=0.3",
    "data=local",
    "data.max_length=64",
    "data.val_fraction=0.2",
    "batch.examples=4",
    "batch.max_tokens=80",
    "optim=adamw",
    "optim.lr=5e-3",
    "optim.eps=1e-5",
    "optim.weight_decay=0.01",
    "optim.clip_norm=0.5",
    "trainer=cpu",
    "trainer.max_steps=24",
    "trainer.max_epochs=100",
    "trainer.val_every_steps=6",
    "checkpoint.every_steps=6",
    "checkpoint.keep_last=1",
    "samples.every_steps=8",
    "samples.max_new_tokens=4",
    "logger=local",
    "seed=7",
    # Files lie where the command is typed, so that a run folder names no machine's folders.
    "model.tokenizer=tokenizer",
    "data.path=records.json",
    "samples.prompts=questions.jsonl",
    "run.root=runs",
)
NUM_STEPS, HALF = 24, 12

STRATEGIES: Mapping[str, Sequence[str]] = {
    "single": ("strategy=single",),
    "ddp": ("strategy=ddp", "trainer.devices=2"),
    "fsdp": ("strategy=fsdp", "trainer.devices=2"),
}

# Overrides then, or their keys (or groups) alone, and what is typed for them now. For example:
#     "optim.lr": "optim.learning_rate",
#     "strategy=single": "strategy=one_process",
NOW: Mapping[str, str] = {"data.on_cut": "data.on_truncation"}


def now(overrides: Sequence[str]) -> list[str]:
    """What is typed now for overrides of then."""
    typed = []
    for override in overrides:
        key, _, value = override.partition("=")
        typed.append(NOW.get(override) or f"{NOW.get(key, key)}={value}")
    return typed


def lay_out(folder: Path, tokenizer: Path) -> None:
    """Puts the files that the overrides name into ``folder``."""
    for file in ("records.json", "questions.jsonl"):
        shutil.copy(HERE / file, folder)
    shutil.copytree(tokenizer, folder / "tokenizer")
