"""The update as one compiled kernel, and from moments in host memory: what plain operations compute on the device."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._inductor.config as inductor
from torch import Tensor, nn

from galpaca.training.optimizers import piecewise_adamw
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.optimizers.adamw_update import nearest
from galpaca.training.optimizers.piecewise_adamw import PiecewiseAdamW
from galpaca.training.optimizers.state import first_state

SHAPES = ((37, 53), (11,), (2, 1000))
OPTIONS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
# One ulp of what a compiler may fuse, over all steps.
TOLERANCE = 1e-6
Make = Callable[[list[nn.Parameter]], Any]


@pytest.fixture(autouse=True)
def scalar_code() -> Iterator[None]:
    """Without the vectors of CPUs, as in ``test_compile.py``: they take g++ longest, and headers that one test had
    compiled without them failed the code of another that had them.
    """
    with inductor.patch({"cpp.vec_isa_ok": False}):
        yield


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters of this size are then of several pieces, the last of which is smaller."""
    monkeypatch.setattr(piecewise_adamw, "_PIECE_VALUES", 300)


def updated(make: Make, steps: int = 12, left_out: tuple[int, ...] = (), factor: float | None = None) -> list[Tensor]:
    """Weights and moments after updates with gradients of all sizes and changing rates."""
    generator = torch.Generator().manual_seed(1)
    parameters = [nn.Parameter(torch.ones(shape)) for shape in SHAPES]
    optimizer = make(parameters)
    for step in range(steps):
        torch.manual_seed(step)  # as a training step does, for the rounding
        for parameter in parameters:
            size = 10 ** float(torch.randn((), generator=generator))
            parameter.grad = size * torch.randn(parameter.shape, generator=generator)
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + step % 7)
        optimizer.found_inf = torch.tensor(float(step in left_out))
        if factor is not None:
            optimizer.grad_factor = torch.tensor(factor)
        optimizer.step()
    moments = [optimizer.state[one][name].float() for one in parameters for name in ("exp_avg", "exp_avg_sq")]
    return [*(one.detach() for one in parameters), *moments]


def make(**more: Any) -> Make:
    return lambda parameters: PiecewiseAdamW(parameters, **{**OPTIONS, **more})


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert float((one - other).abs().max()) <= TOLERANCE * float(other.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("left_out", [(), (0, 3, 4)])
def test_one_kernel_computes_what_plain_operations_do(dtype: torch.dtype | None, left_out: tuple[int, ...]) -> None:
    """With rounding to the nearest, since a compiler draws other random numbers."""
    how = {"moments_dtype": dtype, "rounding": nearest}
    ours = updated(make(one_kernel=True, **how), left_out=left_out, factor=0.25)
    assert_close(ours, updated(make(**how), left_out=left_out, factor=0.25))


@pytest.mark.slow
def test_one_program_serves_all_sizes() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    first_state(AdamW(), torch.float32, torch.device("cpu"))  # as a start does
    updated(make(one_kernel=True, rounding=nearest, eps=3e-8))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_rounding_in_the_kernel_keeps_the_mean_and_is_the_same_each_time() -> None:
    """A second moment that is multiplied with 0.999 seven hundred times, as bfloat16."""

    def decayed() -> Tensor:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.ones(10_000))
        optimizer = PiecewiseAdamW([weight], lr=1e-9, moments_dtype=torch.bfloat16, one_kernel=True)
        weight.grad = torch.ones(10_000)
        optimizer.step()
        weight.grad.zero_()
        for _ in range(700):
            optimizer.step()
        return optimizer.state[weight]["exp_avg_sq"].float()

    found = decayed()
    assert float(found.mean()) == pytest.approx(1e-3 * 0.999**700, rel=0.02)
    assert torch.equal(found, decayed())
    relative = float(found.std() / found.mean())
    assert 0.01 < relative < 1, "each value has random numbers of its own"
    pieces = found[:9_900].view(-1, 300)
    assert not torch.equal(pieces[0], pieces[1]), "and each piece"


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("left_out", [(), (0, 3, 4)])
def test_moments_in_host_memory_give_the_same_bits(dtype: torch.dtype | None, left_out: tuple[int, ...]) -> None:
    on_host = updated(make(moments_dtype=dtype, moments_on_host=True), left_out=left_out)
    on_device = updated(make(moments_dtype=dtype), left_out=left_out)
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_device, strict=True))


@pytest.mark.slow
def test_moments_in_host_memory_give_the_same_bits_in_one_kernel() -> None:
    how = {"moments_dtype": torch.bfloat16, "one_kernel": True}
    on_host, on_device = updated(make(moments_on_host=True, **how)), updated(make(**how))
    assert all(torch.equal(one, other) for one, other in zip(on_host, on_device, strict=True))


@pytest.mark.parametrize("factor", [1.0, 0.3, 1e-6])
def test_a_factor_is_multiplied_with_in_the_update(factor: float) -> None:
    """The bits of gradients that were multiplied before, as clipping does."""

    def scaled(parameters: list[nn.Parameter]) -> Any:
        optimizer = PiecewiseAdamW(parameters, **OPTIONS)
        step = optimizer.step

        def multiply_and_step() -> None:
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.grad *= factor
            step()

        optimizer.step = multiply_and_step  # type: ignore[method-assign, assignment]
        return optimizer

    ours, theirs = updated(make(), factor=factor), updated(scaled)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert all(math.isfinite(float(one.sum())) for one in ours)


def test_a_factor_counts_for_one_update() -> None:
    optimizer = make()([nn.Parameter(torch.ones(3))])
    optimizer.grad_factor = torch.tensor(0.5)
    optimizer.step()
    assert optimizer.grad_factor is None


def test_parameters_share_their_count_until_one_is_not_updated() -> None:
    """Scalars of an update are computed once for all of them: each costs the host as much as a kernel's launch."""
    used, idle = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = make()([used, idle])
    for step in range(3):
        used.grad, idle.grad = torch.ones(3), None if step == 1 else torch.ones(3)
        optimizer.step()
        shared = optimizer.state[used]["step"] is optimizer.state[idle]["step"]
        assert shared is (step == 0)
    assert (float(optimizer.state[used]["step"]), float(optimizer.state[idle]["step"])) == (3, 2)
    reference = torch.optim.AdamW([other := nn.Parameter(torch.ones(3))], **OPTIONS, fused=False)
    for _ in range(2):
        other.grad = torch.ones(3)
        reference.step()
    assert torch.equal(idle, other)
