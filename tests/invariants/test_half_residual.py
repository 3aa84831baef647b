"""``precision.half_residual`` makes one process compute what FSDP computes, without sharding anything."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Train, read_jsonl
from families import FAMILIES, FAMILIES_AT_LENGTH, Sizes, Tiny
from invariants.gradients.toy import make_model
from torch import Tensor, nn

from galpaca.model.build import build_model
from galpaca.model.half_residual import halve_residual
from galpaca.model.parts import materialize_all, plain_name
from galpaca.model.tuning.lora import Lora

COMMON = ("model.dropout=0.0", "trainer.max_steps=4", "trainer.max_epochs=9", "batch.examples=2", "optim.lr=1e-3")


@pytest.mark.parametrize("tiny", FAMILIES_AT_LENGTH, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_one_process_computes_as_fsdp_does(train: Train, tmp_path: Path, precision: str, tiny: Tiny) -> None:
    for name, *overrides in (
        ("single", "strategy=single", "precision.half_residual=true"),
        ("fsdp", "strategy=fsdp"),
        ("fsdp2", "strategy=fsdp2"),
        ("wide", "strategy=single"),
    ):
        done = train(f"run.name={name}", f"precision={precision}", *tiny.overrides, *COMMON, *overrides)
        assert done.returncode == 0, done.stderr
    losses = {
        name: [line["loss"] for line in read_jsonl(tmp_path / "runs" / name / "metrics.jsonl")]
        for name in ("single", "fsdp", "fsdp2", "wide")
    }
    # The head and the embedding are one matrix: their two gradients are added in 16 bits by FSDP, and here in 32.
    for name in ("fsdp", "fsdp2"):
        assert losses["single"][0] == losses[name][0], name
        assert losses["single"] == pytest.approx(losses[name], rel=1e-3), name
    assert losses["single"][0] != losses["wide"][0]


@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("halved", [False, True])
def test_the_dtype_of_the_residual_stream(halved: bool, tiny: Tiny) -> None:
    model = make_model(tiny)
    model.set_attn_implementation("sdpa")
    names = [name for name, _ in model.named_parameters()]
    if halved:
        halve_residual(model, tiny.family)
    seen: dict[str, torch.dtype] = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen["stream"] = inputs[0].dtype

    model.get_submodule(tiny.family.layers)[1].register_forward_pre_hook(look)
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.tensor([[3, 4, 5]])).logits.sum().backward()
    assert seen["stream"] == (torch.bfloat16 if halved else torch.float32)
    assert [plain_name(name) for name, _ in model.named_parameters()] == names
    assert all(one.grad is not None and one.grad.dtype == torch.float32 for one in model.parameters())
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.name)
def test_the_stream_beside_frozen_weights_is_as_wide_as_beside_trained_ones(tiny: Tiny) -> None:
    """OPT adds its positions in float32; a Llama adds nothing, and its stream would be that of a 16-bit embedding."""
    model: Any = build_model(tiny.config(Sizes()), tiny.family)
    Lora().on(tiny.family).prepare(model, torch.bfloat16)
    materialize_all(model, torch.device("cpu"))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.set_attn_implementation("sdpa")
    seen: list[torch.dtype] = []
    layer = model.get_submodule(tiny.family.layers)[1]
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.tensor([[3, 4, 5]]))
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert seen == [torch.float32]
