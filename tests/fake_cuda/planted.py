"""Reads by the host that are planted, to see that they are found; run by ``python -m galpaca.fake_cuda``."""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from bench.bytes.fake_step import Arithmetic, fake_loss, fake_micro_batch, fake_model
from bench.gpu.workload import SHAPES
from galpaca.fake_cuda.host_reads import host_reads
from galpaca.model import loss

READS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda values: values[0].item(),
    "bool": lambda values: bool(values.isfinite().all()),
    "nonzero": lambda values: values.nonzero(),
    "mask": lambda values: values[values > 0],
    "cpu": lambda values: values.cpu(),
    "list": lambda values: values.tolist(),
    "copy": lambda values: torch.empty(8).copy_(values),
    "nothing": lambda values: torch.where(values.isfinite().all(), values, 0.0).sum(),
    "of_host": lambda values: torch.ones(8).sum().item(),
}


def found_in(read: Callable[[], Any]) -> list[str]:
    refusals = (DataDependentOutputException, DynamicOutputShapeException)
    with suppress(*refusals), FakeTensorMode(), host_reads() as found:
        read()
    return found


def of_values(read: Callable[[Tensor], Any]) -> None:
    read(torch.empty(8, device="cuda"))


def planted_in_loss() -> None:
    """A small model's loss that looks at its logits first."""
    config = SHAPES["125m"].config(dropout=0.1)
    config.num_hidden_layers = 1
    arithmetic = Arithmetic.of("bf16-mixed", "single")
    module: Any = loss
    whole = module.cross_entropy

    def looking(logits: Tensor, *args: Any, **options: Any) -> Tensor:
        logits.sum().item()
        return whole(logits, *args, **options)

    module.cross_entropy = looking
    fake_loss(fake_model(config, arithmetic, "none"), fake_micro_batch(2_048, 1_504, 8, 512), arithmetic)


def main() -> None:
    found = {name: found_in(partial(of_values, read)) for name, read in READS.items()}
    print(json.dumps({**found, "loss": found_in(planted_in_loss)}))


if __name__ == "__main__":
    main()
