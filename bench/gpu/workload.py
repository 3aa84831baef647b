"""GALACTICA's shapes with random weights, and examples of Alpaca's lengths with random tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import OPTConfig, OPTForCausalLM

from galpaca.data.examples import EncodedExamples, spans_behind
from galpaca.data.plan import StepPlan
from galpaca.data.receipt import Receipt

# 512 evenly spaced ranks of 52,002 lengths that are modelled on Alpaca's.
_LENGTHS = Path(__file__).with_name("lengths.csv")
VOCAB_SIZE = 50_000
MAX_LENGTH = 512
_RECORDS, _STEP_EXAMPLES, _SEED = 52_002, 128, 42
PAD_ID = 1
_SPECIAL_IDS = 23


@dataclass(frozen=True)
class Shape:
    """Sizes of a GALACTICA model (Taylor et al. 2022, table 5)."""

    num_layers: int
    num_heads: int
    hidden_size: int

    def config(self, dropout: float) -> OPTConfig:
        return OPTConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=self.hidden_size,
            word_embed_proj_dim=self.hidden_size,
            ffn_dim=4 * self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            max_position_embeddings=2_048,
            activation_function="gelu",
            dropout=dropout,
            attention_dropout=0.0,
        )


SHAPES = {"125m": Shape(12, 12, 768), "1.3b": Shape(24, 32, 2_048), "6.7b": Shape(32, 32, 4_096)}


def make_model(config: OPTConfig, device: torch.device) -> OPTForCausalLM:
    """Random float32 weights, made where they will be used."""
    torch.manual_seed(0)
    with device:
        return OPTForCausalLM(config).train()


def make_examples(path: Path | None = None, count: int = 512) -> EncodedExamples:
    """Examples with the lengths of a file like Alpaca's (``num_tokens,num_target_tokens``), and random tokens."""
    columns = np.loadtxt(path or _LENGTHS, delimiter=",", skiprows=1, dtype=np.int64, max_rows=count).T
    num_tokens = np.minimum(columns[0], MAX_LENGTH)
    num_targets = np.minimum(columns[1], num_tokens - 1)
    offsets = np.concatenate([[0], np.cumsum(num_tokens)])
    generator = np.random.default_rng(0)
    return EncodedExamples(
        tokens=generator.integers(_SPECIAL_IDS, VOCAB_SIZE, offsets[-1]).astype(np.uint16),
        offsets=offsets,
        **spans_behind(num_tokens - num_targets, num_tokens),
        content_hashes=np.zeros(len(num_tokens), np.uint64),
        prompt_hashes=np.arange(len(num_tokens), dtype=np.uint64),
        near_hashes=np.arange(len(num_tokens), dtype=np.uint64),
        record_indices=np.arange(len(num_tokens), dtype=np.int32),
        receipt=Receipt("random tokens", MAX_LENGTH),
    )


def alpaca_plan(max_tokens: int, num_ranks: int) -> StepPlan:
    """All steps of the published recipe, on lengths like Alpaca's.

    Args:
        max_tokens: budget of a micro-batch.
    """
    examples = make_examples()
    order = np.random.default_rng(0).permutation(_RECORDS)
    lengths, num_targets = (np.resize(one, _RECORDS)[order] for one in (examples.lengths, examples.num_targets))
    return StepPlan(lengths, num_targets, _STEP_EXAMPLES, max_tokens, num_ranks, _SEED)
