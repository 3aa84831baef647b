"""What the training path does on a pretended card, case by case, as JSON; run by ``python -m galpaca.fake_cuda``.

The layers are those of GALACTICA 6.7B, three of them: all but the last are alike, so the second stands for 30 more.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from bench.bytes.fake_step import Arithmetic, fake_loss, fake_micro_batch, fake_model
from bench.gpu.workload import SHAPES
from galpaca.data.collate import MicroBatch
from galpaca.fake_cuda.host_reads import host_reads
from galpaca.fake_cuda.inductor import recorded
from galpaca.fake_cuda.kept import Kept, kept_for_backward
from galpaca.fake_cuda.program import Program

NUM_LAYERS = 3
# What is kept is measured at the first, a whole budget. The others are as ``data.sizes`` rounds them, targets too.
# None of these crosses a size at which Inductor changes its mind: see ``crossing``.
SIZES = [
    (4_096, 2_048),
    (3_968, 1_984),
    (4_064, 2_240),
    (3_616, 1_632),
    (4_000, 1_312),
    (4_032, 2_688),
    (3_840, 1_920),
    (2_048, 1_504),
]
_AT_NO_SIDE = (4_064, 2_240)
NUM_EXAMPLES, LONGEST_TOKENS = 100, 512


@dataclass(frozen=True)
class Case:
    """A way to train.

    Attributes:
        precision: as in ``conf/precision``.
        strategy: as in ``conf/strategy``.
        recomputation: as in ``conf/compute``.
    """

    precision: str
    strategy: str
    recomputation: str

    @property
    def name(self) -> str:
        return f"{self.strategy} {self.precision} {self.recomputation}"


def look(case: Case) -> dict[str, Any]:
    """All that the tests ask of a case."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    recorded.programs.clear()
    arithmetic = Arithmetic.of(case.precision, case.strategy)
    config = SHAPES["6.7b"].config(dropout=0.1)
    config.num_hidden_layers = NUM_LAYERS
    with FakeTensorMode():
        model = fake_model(config, arithmetic, case.recomputation)
        with host_reads() as reads:
            for tokens, targets in SIZES:
                fake_loss(model, _micro_batch(tokens, targets), arithmetic).backward()
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        programs = [_program(program) for program in recorded.programs]
        with _Watched(model) as watched:
            loss = fake_loss(model, _micro_batch(*SIZES[0]), arithmetic)
        loss.backward()
        copies = _weight_copies(model, arithmetic)
    return {
        "graphs": graphs,
        "programs": programs,
        "host_reads": reads,
        "loss": str(loss.dtype),
        "gradients": sorted({str(one.grad.dtype) for one in model.parameters() if one.grad is not None}),
        "residual": watched.residual,
        "kept_bytes": watched.kept_by_layer(),
        "kept_beside_bytes": watched.kept.num_bytes - sum(watched.kept_by_layer()),
        "kept_weight_copies_bytes": copies,
    }


def _weight_copies(model: PreTrainedModel, arithmetic: Arithmetic) -> int:
    """Bytes kept of the shapes of layers' matrices, at a number of tokens that is none of their sides."""
    shapes = {tuple(weight.shape) for weight in model.model.decoder.layers.parameters() if weight.ndim == 2}
    with kept_for_backward(model.parameters()) as kept:
        loss = fake_loss(model, _micro_batch(*_AT_NO_SIDE), arithmetic)
    loss.backward()
    return sum(count for (_, shape), count in kept.by_kind().items() if {shape, shape[::-1]} & shapes)


def _micro_batch(num_tokens: int, num_targets: int) -> MicroBatch:
    return fake_micro_batch(num_tokens, num_targets, NUM_EXAMPLES, LONGEST_TOKENS)


def _program(program: Program) -> dict[str, Any]:
    launches = program.launches
    return {
        "is_backward": program.is_backward,
        "triton_kernels": program.code.count("@triton.jit"),
        "generated_bytes": sum(launch.moved_bytes for launch in launches if not launch.is_library),
        "library_bytes": sum(launch.moved_bytes for launch in launches if launch.is_library),
        "num_runs": program.num_runs,
        "compiled_for": sorted(set(re.findall(r"\bcc=(\d+)", program.code))),
    }


class _Watched:
    """A forward's residual stream and what it keeps, layer by layer."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.residual: list[str] = []
        self._totals: list[int] = []
        self._context = kept_for_backward(model.parameters())
        self._layers = model.model.decoder.layers
        self._hooks: list[Any] = []

    def __enter__(self) -> _Watched:
        self.kept: Kept = self._context.__enter__()
        for layer in self._layers:
            self._hooks.append(layer.register_forward_pre_hook(self._before))
            self._hooks.append(layer.register_forward_hook(self._after))
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        self._context.__exit__(*error)

    def kept_by_layer(self) -> list[int]:
        return [after - before for before, after in zip(self._totals[::2], self._totals[1::2], strict=True)]

    def _before(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.residual.append(str(inputs[0].dtype))
        self._totals.append(self.kept.num_bytes)

    def _after(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self._totals.append(self.kept.num_bytes)


def main() -> None:
    cases = [Case(**case) for case in json.loads(sys.argv[1])]
    print(json.dumps({case.name: {**asdict(case), **look(case)} for case in cases}))


if __name__ == "__main__":
    main()
