"""What an optimizer's update moves on a pretended card, as JSON; run by ``python -m galpaca.fake_cuda``."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.bytes import parts
from bench.bytes.fake_step import Arithmetic, fake_model
from bench.bytes.fake_update import FakeUpdate
from bench.gpu.workload import SHAPES
from fake_cuda import cases
from galpaca.fake_cuda.host_reads import host_reads
from galpaca.fake_cuda.inductor import recorded
from galpaca.fake_cuda.tally import tallied
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.specs import OptimizerSpec


def look(precision: str, moments: str) -> dict[str, Any]:
    """Bytes of the norm and of the update, in the second step: the first makes the state."""
    torch._dynamo.reset()
    recorded.programs.clear()
    config = SHAPES["6.7b"].config(dropout=0.1)
    config.num_hidden_layers = 1
    with FakeTensorMode():
        model = fake_model(config, Arithmetic.of(precision, "single"), "none")
        update = FakeUpdate(model, OptimizerSpec(factory=AdamW(moments_dtype=moments)), precision)
        update()
        with host_reads() as reads, tallied() as tally:
            update()
    found = parts.of_update(tally.ops, tally.programs)
    return {
        "moved_bytes": {"norm": found.norm, "update": found.update},
        "programs": len(recorded.programs),
        "launches": sorted({len(program.launches) for program in tally.programs}),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "host_reads": reads,
    }


if __name__ == "__main__":
    print(json.dumps({cases.update_name(case): look(**case) for case in json.loads(sys.argv[1])}))
