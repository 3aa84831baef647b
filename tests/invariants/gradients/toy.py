"""A toy model and examples that every process makes alike."""

import numpy as np
import torch
from transformers import OPTConfig, OPTForCausalLM

from galpaca.data.examples import EncodedExamples, spans_behind
from galpaca.data.receipt import Receipt

VOCABULARY, PAD = 61, 1
STEP_EXAMPLES = 20
# The second step has one example, fewer than there are ranks.
NUM_EXAMPLES = STEP_EXAMPLES + 1
NUM_STEPS = 2
SEED = 5


def make_model() -> OPTForCausalLM:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=64,
        activation_function="gelu",
        dropout=0.0,
        attention_dropout=0.0,
    )
    model = OPTForCausalLM(config).train()
    for parameter in model.parameters():  # biases and norms begin at 0 and 1, where mistakes would not show
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def make_examples() -> EncodedExamples:
    generator = np.random.default_rng(3)
    lengths = generator.integers(2, 40, NUM_EXAMPLES)
    offsets = np.cumsum([0, *lengths])
    return EncodedExamples(
        tokens=generator.integers(3, VOCABULARY, offsets[-1]).astype(np.uint16),
        offsets=offsets,
        **spans_behind([generator.integers(0, length) for length in lengths], lengths),
        content_hashes=np.zeros(NUM_EXAMPLES, np.uint64),
        prompt_hashes=np.arange(NUM_EXAMPLES, dtype=np.uint64),
        near_hashes=np.arange(NUM_EXAMPLES, dtype=np.uint64),
        record_indices=np.arange(NUM_EXAMPLES, dtype=np.int32),
        receipt=Receipt("toy", 64),
    )
