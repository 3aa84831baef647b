"""What a Llama's training path does on a pretended card, as JSON; run by ``python -m galpaca.fake_cuda``.

The layers are those of Llama 3.2 1B, three of them: rotary positions, grouped heads, gated blocks.
"""

import json
import sys
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.bytes.fake_step import Arithmetic, fake_loss, fake_micro_batch, fake_model
from fake_cuda.microscope import LONGEST_TOKENS, NUM_EXAMPLES, NUM_LAYERS
from galpaca.app.config.schema import config_folder
from galpaca.fake_cuda.host_reads import host_reads
from galpaca.fake_cuda.inductor import recorded
from galpaca.model.configuration import described
from galpaca.model.spec import ModelSpec

# Tokens and targets, as ``data.sizes`` rounds them.
SIZES = [(4_096, 2_048), (3_968, 1_984), (2_048, 1_504), (4_032, 2_688)]


def look(precision: str, strategy: str) -> dict[str, Any]:
    """Graphs, reads of the host, dtypes, and how the attention kernel is called."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    recorded.programs.clear()
    arithmetic = Arithmetic.of(precision, strategy)
    shape = str(config_folder() / "model" / "llama-3.2-1b.json")
    config, family = described(ModelSpec(config=shape, tokenizer="none"))
    config.num_hidden_layers = NUM_LAYERS
    with FakeTensorMode():
        model = fake_model(config, arithmetic, "none", family)
        with host_reads() as reads:
            for tokens, targets in SIZES:
                micro_batch = fake_micro_batch(tokens, targets, NUM_EXAMPLES, LONGEST_TOKENS)
                loss = fake_loss(model, micro_batch, arithmetic)
                loss.backward()
    return {
        "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"],
        "host_reads": reads,
        "loss": str(loss.dtype),
        "gradients": sorted({str(one.grad.dtype) for one in model.parameters() if one.grad is not None}),
        "attention_calls": sum("_varlen_attn" in program.code for program in recorded.programs),
        "triton_kernels": [program.code.count("@triton.jit") for program in recorded.programs],
    }


if __name__ == "__main__":
    print(json.dumps(look(*sys.argv[1:])))
