"""The recipe of a run: the settings that decide its trained weights, read as any version has written them.

The configuration's keys belong to the recipe unless they are ``FREE``. When the configuration changes, runs that were
started before still resume:

- a new key gets a line in ``ADDED``: the value that held before there was the key;
- a renamed key gets a line in ``RENAMED``;
- a setting whose value gets another meaning needs another ``FORMAT``, and a translation.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# 1: until commit 51e9e50; ``data.fingerprint`` is the key of the cache of encoded examples.
# 2: ``data.fingerprint`` is a digest of the examples.
FORMAT = 2

# Keys of the configuration (or whole groups) that may change whenever a run is resumed, by what they decide. They move
# the weights by rounding at most. docs/run-folder.md shows this table.
FREE: Mapping[str, tuple[str, ...]] = {
    "machines and processes": ("strategy", "trainer.accelerator", "trainer.devices", "trainer.num_nodes"),
    "memory and speed": (
        "batch.max_tokens",
        "compute",
        "optim.fused",
        "optim.moments_on",
        "precision.half_residual",
        "precision.reduce_dtype",
        "trainer.data_workers",
    ),
    "where files are (their contents are compared)": (
        "run",
        "model.tokenizer",
        "data.path",
        "data.val_path",
        "data.cache_dir",
    ),
    "what is saved, measured and shown": (
        "checkpoint",
        "logger",
        "callbacks",
        "samples",
        "trainer.val_every_steps",
        "trainer.read_metrics_every_steps",
    ),
    "when to stop, at the latest after all steps": ("trainer.early_stopping_patience",),
    "what happens after a fault": ("guard", "hang"),
    "the released folder": ("release", "model.license", "data.license", "data.terms"),
}

# Keys that earlier recipes lack, with the value that held then.
ADDED: Mapping[str, Any] = {
    "trainer.longest_steps": None,
    "optim._target_": "galpaca.training.optimizers.adamw.AdamW",
    "model.family": None,  # there was one
    "model.config": None,
    "model.num_kv_heads": None,
    "data.hub_config": None,
    "data.on_missing_input": "empty",  # such records were refused
    "data.tags": {},
    "data.sub_superscripts": "keep",
    "data.mix": {},
    "data.test_fraction": 0.0,
    "data.split_by": None,
    "data.split_kind": "value",
    "data.on_empty_instruction": "keep",
    "data.on_special_tokens": "keep",
    "data.on_control_characters": "keep",
    "data.template_date": "2024-07-26",  # no template had a date
}

# Former names of keys, with today's.
RENAMED: Mapping[str, str] = {
    "precision": "precision.name",
    "data.on_cut": "data.on_truncation",
}

DATA, TOKENIZER, BASE = "data.fingerprint", "tokenizer.fingerprint", "base.fingerprint"
_FORMAT_KEY = "format"


@dataclass(frozen=True)
class Recipe:
    """A recipe under today's names.

    Attributes:
        settings: value by key, as JSON has it: the configuration's dotted keys, and fingerprints of data and tokenizer.
        format: format that it was written in.
        former_fingerprint: the fingerprint of the same data in format 1, where it is known.
    """

    settings: Mapping[str, Any]
    format: int = FORMAT
    former_fingerprint: str | None = field(default=None, compare=False)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Recipe":
        """A recipe as any version has written it.

        Raises:
            ValueError: a later version has written it, or none has.
        """
        written = content.get(_FORMAT_KEY, 1)
        if not isinstance(written, int) or written > FORMAT:
            raise ValueError(f"recipe format {written!r}, but this version reads formats up to {FORMAT}")
        settings = {RENAMED.get(key, key): value for key, value in content.items() if key != _FORMAT_KEY}
        return cls({**ADDED, **settings}, written)

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads; flat."""
        return {_FORMAT_KEY: self.format, **self.settings}

    def changes_since(self, earlier: "Recipe") -> list[str]:
        """Every setting that differs from an earlier recipe's, with both values."""
        then, now = earlier.settings, self._in_format(earlier.format)
        return [
            f"{key}: {_short(then.get(key, 'absent'))} -> {_short(now.get(key, 'absent'))}"
            for key in sorted(then.keys() | now.keys())
            if then.get(key) != now.get(key)
        ]

    def _in_format(self, wanted: int) -> Mapping[str, Any]:
        """The settings as an earlier format states them, as far as that is known."""
        if wanted < self.format and self.former_fingerprint is not None:
            return {**self.settings, DATA: self.former_fingerprint}
        return self.settings


def make_recipe(
    configuration: Mapping[str, Any],
    *,
    data: str,
    tokenizer: str,
    base: str | None = None,
    former_data: str | None = None,
) -> Recipe:
    """The recipe of a run that starts now.

    Args:
        configuration: as ``settings_of`` takes it.
        data, tokenizer: their fingerprints.
        base: that of the weights that it starts from, where they are part of what is trained.
        former_data: fingerprint of the data in format 1.
    """
    settings = {**settings_of(configuration), DATA: data, TOKENIZER: tokenizer, **({BASE: base} if base else {})}
    return Recipe(json.loads(json.dumps(settings)), former_fingerprint=former_data)


def settings_of(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration's part of a recipe: all its keys but those that are free, dotted.

    Args:
        configuration: values, or groups of values, by name.
    """
    free = {key for keys in FREE.values() for key in keys}
    dotted: dict[str, Any] = {}
    for name, value in configuration.items():
        dotted |= {f"{name}.{key}": of for key, of in value.items()} if isinstance(value, Mapping) else {name: value}
    return {key: value for key, value in dotted.items() if not free & {key, key.partition(".")[0]}}


def _short(value: Any) -> str:
    """Shortens fingerprints: their first digits suffice to distinguish them."""
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text
