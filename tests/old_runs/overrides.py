"""A small run's command line as the first kept commit took it, and as the present code takes it.

Whoever renames a key, or replaces it, adds a line to ``NOW``.
"""

from collections.abc import Mapping, Sequence

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

# Key (or group) of an override then, and the one that it has become.
NOW: Mapping[str, str] = {}


def now(overrides: Sequence[str]) -> list[str]:
    """The same overrides under the present names."""
    pairs = (override.partition("=") for override in overrides)
    return [f"{NOW.get(key, key)}={value}" for key, _, value in pairs]
