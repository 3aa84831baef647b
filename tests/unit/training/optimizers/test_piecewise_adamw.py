"""AdamW in plain operations: torch's own bits in float32, and moments in bfloat16 that are rounded without a bias."""

import io
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from galpaca.training.optimizers.adamw_update import stochastic
from galpaca.training.optimizers.piecewise_adamw import PiecewiseAdamW

OPTIONS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
compact = partial(PiecewiseAdamW, moments_dtype=torch.bfloat16)


def updated(make: Any, dtype: torch.dtype, steps: int = 1500) -> list[torch.Tensor]:
    """Weights and moments after updates with gradients of all sizes and changing rates."""
    generator = torch.Generator().manual_seed(1)
    parameters = [nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in ((37, 53), (11,))]
    optimizer = make(parameters)
    for step in range(steps):
        for parameter in parameters:
            size = 10 ** float(torch.randn((), generator=generator))
            parameter.grad = size * torch.randn(parameter.shape, generator=generator, dtype=dtype)
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + step % 7)
        optimizer.step()
    moments = [optimizer.state[one][name] for one in parameters for name in ("exp_avg", "exp_avg_sq")]
    return [*(one.detach() for one in parameters), *moments]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_its_bits_are_those_of_torchs_loop(dtype: torch.dtype, weight_decay: float) -> None:
    """Which has the number of updates on the host, where a flag on the device cannot hold it back."""
    options = {**OPTIONS, "weight_decay": weight_decay}
    ours = updated(lambda parameters: PiecewiseAdamW(parameters, **options), dtype)
    theirs = updated(lambda parameters: torch.optim.AdamW(parameters, fused=False, **options), dtype)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def train(optimizer_class: Any, steps: int = 50) -> torch.Tensor:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(64, 32))
    target = torch.randn(64, 32)
    optimizer = optimizer_class([weight], **OPTIONS)
    for step in range(steps):
        optimizer.zero_grad()
        noise = torch.randn(64, 32, generator=torch.Generator().manual_seed(step))
        ((weight - target + 0.1 * noise) ** 2).sum().backward()
        optimizer.step()
    return weight.detach()


def test_weights_follow_those_of_adamw() -> None:
    """To a thousandth of the way that they went; bfloat16 alone is that coarse."""
    torch.manual_seed(0)
    start = torch.randn(64, 32)
    exact, rounded = train(torch.optim.AdamW), train(compact)
    assert (rounded - exact).norm() < 0.02 * (exact - start).norm()


def test_moments_take_two_bytes_each_and_keep_that_after_a_reload() -> None:
    """torch's ``load_state_dict`` casts to the parameter's dtype: a resumed run would need 4 bytes more."""
    weight = nn.Parameter(torch.randn(10))
    optimizer = compact([weight], **OPTIONS)
    weight.grad = torch.randn(10)
    optimizer.step()
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    resumed = compact([weight], **OPTIONS)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for moment in ("exp_avg", "exp_avg_sq"):
        assert resumed.state[weight][moment].dtype == torch.bfloat16
        assert torch.equal(resumed.state[weight][moment], optimizer.state[weight][moment])


def test_a_second_moment_decays() -> None:
    """Rounded to the nearest it stays for ever: a thousandth is less than half of bfloat16's last place."""
    weight = nn.Parameter(torch.ones(10_000))
    optimizer = compact([weight], lr=1e-9)
    weight.grad = torch.ones(10_000)
    optimizer.step()
    weight.grad.zero_()
    for _ in range(700):
        optimizer.step()
    found = float(optimizer.state[weight]["exp_avg_sq"].float().mean())
    assert found == pytest.approx(1e-3 * 0.999**700, rel=0.02)


def test_rounding_keeps_the_mean() -> None:
    torch.manual_seed(0)
    value = 1 + 1 / 300  # between 1 and the next bfloat16, 1 + 1/128
    rounded = stochastic(torch.full((100_000,), value)).float()
    assert set(rounded.unique().tolist()) == {1.0, 1 + 1 / 128}
    deviation = math.sqrt((1 / 300) * (1 / 128 - 1 / 300) / 100_000)
    assert abs(float(rounded.mean()) - value) < 5 * deviation


def test_rounding_leaves_what_fits_and_what_is_not_finite() -> None:
    values = torch.tensor([0.0, -2.5, 1024.0, math.inf, -math.inf])
    assert torch.equal(stochastic(values).float(), values)
    assert stochastic(torch.tensor([math.nan])).isnan().all()
