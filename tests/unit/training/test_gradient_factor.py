"""Clipping and the loss scale as one factor give the bits of torch's own two passes."""

import pytest
import torch
from torch import Tensor, nn

from galpaca.training.gradient_factor import gradient_factor, scale_gradients
from galpaca.training.loss_scale import gradients_measured, inverse_scale


def model_with_gradients(scale: float) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * scale
    return model


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def used_scaler() -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler(device="cpu")
    scaler.scale(torch.zeros(()))
    return scaler


@pytest.mark.parametrize("max_norm", [None, 0.5, 1e6])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_same_bits_as_unscaling_and_clipping(max_norm: float | None, scaled: bool) -> None:
    scaler = used_scaler() if scaled else None
    theirs, ours = (model_with_gradients(65536.0 if scaled else 1.0) for _ in range(2))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=1.0)
    if scaler is not None:
        scaler.unscale_(optimizer)
    reference = nn.utils.clip_grad_norm_(theirs.parameters(), float("inf") if max_norm is None else max_norm)

    own = torch.optim.SGD(ours.parameters(), lr=1.0)
    norm = nn.utils.get_total_norm(gradients(ours))
    unscale = inverse_scale(used_scaler()) if scaled else None
    norm = norm if unscale is None else norm * unscale
    scale_gradients(own, gradient_factor(norm, max_norm, unscale))
    assert torch.equal(norm, reference)
    for one, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert torch.equal(one, other)


def test_an_update_is_left_out_and_the_scale_falls_where_gradients_are_said_to_be_bad() -> None:
    model = model_with_gradients(1.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, fused=True)
    scaler = used_scaler()
    gradients_measured(scaler, optimizer, torch.tensor(True))
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 32768.0
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))
