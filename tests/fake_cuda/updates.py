"""What an optimizer's update moves on a pretended card, as JSON; run by ``python -m galpaca.fake_cuda``."""

from __future__ import annotations

import json
import sys
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from bench.bytes.fake_step import Arithmetic, fake_model
from bench.bytes.fake_update import FakeUpdate
from bench.gpu.workload import SHAPES
from galpaca.fake_cuda.host_reads import host_reads
from galpaca.fake_cuda.tally import tallied
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.specs import OptimizerSpec


def look(precision: str, moments: str) -> dict[str, Any]:
    """Bytes of unscaling, norm, clipping and update together, in the second step: the first makes the state.

    Of a small model: they go by its parameters, whatever their number.
    """
    config = SHAPES["125m"].config(dropout=0.1)
    config.num_hidden_layers = 1
    with FakeTensorMode():
        model = fake_model(config, Arithmetic.of(precision, "single"), "none")
        update = FakeUpdate(model, OptimizerSpec(factory=AdamW(moments_dtype=moments)), precision)
        update()
        with host_reads() as reads, tallied() as tally:
            update()
    return {
        "moved_bytes": {"update": tally.moved_bytes},
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "host_reads": reads,
    }


if __name__ == "__main__":
    print(json.dumps([look(**case) for case in json.loads(sys.argv[1])]))
