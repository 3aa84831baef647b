"""Counts settings on a pretended card, as JSON; ``bench.bytes`` runs it by ``python -m galpaca.fake_cuda``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel

from bench.bytes import fsdp, parts
from bench.bytes.fake_step import Arithmetic, fake_loss, fake_micro_batch, fake_model
from bench.bytes.fake_update import FakeUpdate
from bench.bytes.parts import Parts
from bench.bytes.workload import Workload, mean_workload
from bench.gpu.workload import SHAPES
from galpaca.data.collate import MicroBatch
from galpaca.fake_cuda.kept import kept_for_backward
from galpaca.fake_cuda.program import Program
from galpaca.fake_cuda.tally import Tally, tallied
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.specs import OptimizerSpec

MOMENTS = ("float32", "bfloat16")
RANKS = {"single": 1, "fsdp": 4}
# All layers but the last are alike: this many are counted, and stand for all.
_NUM_LAYERS = 2
_NUM_EXAMPLES, _LONGEST_TOKENS = 128, 512


@dataclass(frozen=True)
class Setting:
    """What is counted.

    Attributes:
        shape: one of ``SHAPES``.
        tokens_per_micro_batch: budget.
    """

    shape: str
    precision: str
    strategy: str
    tokens_per_micro_batch: int
    recomputation: str = "none"

    @property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic.of(self.precision, self.strategy)


def rows(setting: Setting) -> list[dict[str, Any]]:
    """A row for each dtype of moments."""
    workload = mean_workload(setting.tokens_per_micro_batch, RANKS[setting.strategy])
    torch._dynamo.reset()
    with FakeTensorMode():
        model = fake_model(_config(setting, _NUM_LAYERS), setting.arithmetic, setting.recomputation)
        step, gib_kept = _step(setting, workload, model)
        updates = {moments: _update(setting, workload, moments) for moments in MOMENTS}
    given = {name: value for name, value in asdict(setting).items() if name != "strategy"}
    return [
        {
            **given,
            "strategy": setting.strategy,
            "moments": moments,
            **asdict(workload),
            "parameters": _num_parameters(setting),
            "gigabytes": (step + update).gigabytes(),
            "norm_and_update_bytes_per_parameter": round(update.total * workload.ranks / _num_parameters(setting), 1),
            "gib_kept_for_backward": round(gib_kept, 2),
        }
        for moments, update in updates.items()
    ]


def _step(setting: Setting, workload: Workload, model: PreTrainedModel) -> tuple[Parts, float]:
    """All micro-batches' forward and backward, and GiB that one of the whole budget keeps."""
    micro_batch = _micro_batch(workload.num_tokens, workload.num_targets)
    fake_loss(model, micro_batch, setting.arithmetic).backward()  # compiles
    for parameter in model.parameters():
        parameter.grad = None
    first, later = (_tally(setting, model, micro_batch) for _ in range(2))
    num_layers = SHAPES[setting.shape].num_layers
    per_micro_batch = _of_programs(first.programs, num_layers) + _outside(first, model, num_layers)
    added = _outside(later, model, num_layers).accumulation - _outside(first, model, num_layers).accumulation
    step = per_micro_batch * workload.micro_batches
    if setting.strategy == "fsdp":  # which takes gradients away before the next are added
        step += _around(setting, workload)
    else:
        step += Parts(accumulation=added * (workload.micro_batches - 1))
    return step, _gib_kept(setting, model, num_layers)


def _tally(setting: Setting, model: PreTrainedModel, micro_batch: MicroBatch) -> Tally:
    with tallied() as tally:
        fake_loss(model, micro_batch, setting.arithmetic).backward()
    return tally


def _of_programs(programs: list[Program], num_layers: int) -> Parts:
    """Forward of a layer and of the last, then backward of the last and of a layer."""
    layer, last, last_backward, layer_backward = map(parts.of_program, programs)
    return (layer + layer_backward) * (num_layers - 1) + last + last_backward


def _outside(tally: Tally, model: PreTrainedModel, num_layers: int) -> Parts:
    """Embeddings, head, loss, and what autograd adds up; of layers' parameters as many as there are."""
    of_layers = {tuple(one.shape) for one in model.model.decoder.layers.parameters()}
    weights = {tuple(one.shape) for one in model.parameters()}
    layers = [one for one in tally.ops if set(one.shapes) <= of_layers and one.shapes]
    others = [one for one in tally.ops if one not in layers]
    of_layer = parts.of_operations(layers, weights) * (1 / _NUM_LAYERS)
    return of_layer * num_layers + parts.of_operations(others, weights)


def _around(setting: Setting, workload: Workload) -> Parts:
    hidden = SHAPES[setting.shape].hidden_size
    of_layers = SHAPES[setting.shape].num_layers * (12 * hidden**2 + 13 * hidden)
    return fsdp.around_layers(_num_parameters(setting), of_layers, workload.micro_batches, workload.ranks)


def _gib_kept(setting: Setting, model: PreTrainedModel, num_layers: int) -> float:
    tokens = setting.tokens_per_micro_batch
    micro_batch = _micro_batch(tokens, tokens // 2)
    totals: list[int] = []
    with kept_for_backward(model.parameters()) as kept:
        layer = model.model.decoder.layers[0]
        hooks = [
            layer.register_forward_pre_hook(lambda *_: totals.append(kept.num_bytes)),
            layer.register_forward_hook(lambda *_: totals.append(kept.num_bytes)),
        ]
        fake_loss(model, micro_batch, setting.arithmetic)
    for hook in hooks:
        hook.remove()
    return (kept.num_bytes + (num_layers - _NUM_LAYERS) * (totals[1] - totals[0])) / 2**30


def _update(setting: Setting, workload: Workload, moments: str) -> Parts:
    """A rank's, in the second step: the first makes the optimizer's state. Of one layer, for all."""
    model = fake_model(_config(setting, 1), Arithmetic.of(setting.precision, "single"), "none")
    update = FakeUpdate(model, OptimizerSpec(factory=AdamW(moments_dtype=moments)), setting.precision)
    update()
    with tallied() as tally:
        update()
    counted = sum(parameter.numel() for parameter in model.parameters())
    return parts.of_update(tally.ops, tally.programs) * (_num_parameters(setting) / counted / workload.ranks)


def _micro_batch(num_tokens: int, num_targets: int) -> MicroBatch:
    return fake_micro_batch(num_tokens, num_targets, _NUM_EXAMPLES, _LONGEST_TOKENS)


def _config(setting: Setting, num_layers: int) -> OPTConfig:
    config = SHAPES[setting.shape].config(dropout=0.1)
    config.num_hidden_layers = num_layers
    return config


def _num_parameters(setting: Setting) -> int:
    with torch.device("meta"):
        model = OPTForCausalLM(SHAPES[setting.shape].config(dropout=0.1))
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    for given in json.loads(sys.argv[1]):
        print(json.dumps(rows(Setting(**given))), flush=True)


if __name__ == "__main__":
    main()
