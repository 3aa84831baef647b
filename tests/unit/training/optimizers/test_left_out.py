"""An update that a flag on the device leaves out leaves no trace under any optimizer, and the host need not know."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from extension.own_optimizers import Adamax, HostCounting, Lion, Sgd
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from galpaca.model.families.opt import OPT
from galpaca.training.non_finite.update_guard import UpdateGuard
from galpaca.training.optimization import make_optimizer
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.optimizers.conditional import ConditionalOptimizer
from galpaca.training.optimizers.factory import OptimizerFactory
from galpaca.training.specs import OptimizerSpec

FACTORIES: dict[str, OptimizerFactory] = {
    "adamw": AdamW(weight_decay=0.1),
    "adamw, unfused": AdamW(weight_decay=0.1, fused=False),
    "adamw, bfloat16": AdamW(weight_decay=0.1, moments_dtype="bfloat16"),
    "sgd": Sgd(weight_decay=0.1),
    "sgd, foreach": Sgd(weight_decay=0.1, foreach=True),
    "sgd, no momentum": Sgd(momentum=0.0),
    "lion": Lion(weight_decay=0.1),
    "adamax": Adamax(),
    "a count of Python's": HostCounting(),
}
# What of the host's own an update depends on, the host must keep right.
COUNTED_ON_HOST = {"adamax", "a count of Python's"}
every_optimizer = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
LEFT_OUT = (0, 1, 4, 5, 9)  # the first two, too: before there is any state


class Training:
    """Updates with the same gradients whenever it is made."""

    def __init__(self, factory: OptimizerFactory) -> None:
        generator = torch.Generator().manual_seed(3)
        shapes = {"fc1.weight": (5, 7), "fc1.bias": (5,), "fc2.weight": (3, 5)}
        self.parameters = {
            name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()
        }
        self.optimizer: Any = make_optimizer(
            OptimizerSpec(lr=0.1, factory=factory), self.parameters.items(), OPT.decays
        )
        self.guard = UpdateGuard(holds=False)

    def gradients(self, step: int, *, bad: bool = False) -> None:
        generator = torch.Generator().manual_seed(step)
        for parameter in self.parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator) * (float("nan") if bad else 1)
        torch.manual_seed(step)  # of bfloat16's rounding

    def update(self, step: int, *, bad: bool = False) -> None:
        """As a training step makes it."""
        self.gradients(step, bad=bad)
        self.guard.before_update(self.optimizer, torch.tensor(bad))
        self.optimizer.step()
        self.guard.after_update(self.optimizer)

    def held(self) -> list[Tensor]:
        """Weights and state, in order."""
        state = [value for one in self.parameters.values() for value in self.optimizer.state.get(one, {}).values()]
        return [*(one.detach() for one in self.parameters.values()), *(torch.as_tensor(value) for value in state)]


def assert_equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    assert [tensor.dtype for tensor in one] == [tensor.dtype for tensor in other]
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@every_optimizer
def test_it_is_the_training_without_that_update(factory: OptimizerFactory) -> None:
    guarded, plain = Training(factory), Training(factory)
    for step in range(12):
        guarded.update(step, bad=step in LEFT_OUT)
        if step not in LEFT_OUT:
            plain.gradients(step)
            plain.optimizer.step()
    assert_equal(guarded.held(), plain.held())


@every_optimizer
def test_it_changes_no_bit(factory: OptimizerFactory) -> None:
    training = Training(factory)
    for step in range(3):
        training.update(step)
    before = copy.deepcopy(training.held())
    training.update(3, bad=True)
    assert_equal(training.held(), before)
    training.update(4)
    assert not torch.equal(training.held()[0], before[0])


@every_optimizer
def test_an_update_that_is_made_has_the_optimizers_own_bits(factory: OptimizerFactory) -> None:
    guarded, plain = Training(factory), Training(factory)
    own = plain.optimizer.inner if isinstance(plain.optimizer, ConditionalOptimizer) else plain.optimizer
    for step in range(12):
        guarded.update(step)
        plain.gradients(step)
        own.step()
    assert_equal(guarded.held(), plain.held())


class NoReads(TorchDispatchMode):
    """Refuses to bring a number to the host, for which a GPU would be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host reads a number"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", sorted(FACTORIES.keys() - COUNTED_ON_HOST))
@pytest.mark.parametrize("bad", [False, True])
def test_the_host_reads_no_number(name: str, bad: bool) -> None:
    """With ``optim.fused=false``, and with moments in bfloat16, each step waited for the flag."""
    training = Training(FACTORIES[name])
    training.update(0)
    with NoReads():
        training.update(1, bad=bad)
        training.update(2)


@pytest.mark.parametrize("name", sorted(FACTORIES.keys() - COUNTED_ON_HOST))
def test_nor_does_it_under_a_loss_scaler(name: str) -> None:
    """torch's scaler reads its flag for every optimizer that does not take it."""
    guarded, plain = Training(FACTORIES[name]), Training(FACTORIES[name])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(()))  # makes its tensors
    for step in range(4):
        guarded.gradients(step, bad=step == 2)
        for parameter in guarded.parameters.values():
            assert parameter.grad is not None
            parameter.grad *= 1024.0
        with NoReads() if step else torch.no_grad():
            scaler.unscale_(guarded.optimizer)
            scaler.step(guarded.optimizer)
        scaler.update(1024.0)
        if step != 2:
            plain.gradients(step)
            plain.optimizer.step()
    assert_equal(guarded.held(), plain.held())


@pytest.mark.parametrize("name", ["adamw, unfused", "adamw, bfloat16", "sgd"])
def test_a_scale_that_is_still_in_the_gradients_is_taken_out(name: str) -> None:
    """As torch's fused optimizers do it, where nobody has unscaled before."""
    scaled, plain = Training(FACTORIES[name]), Training(FACTORIES[name])
    for step in range(3):
        scaled.gradients(step)
        for parameter in scaled.parameters.values():
            assert parameter.grad is not None
            parameter.grad *= 64.0
        scaled.optimizer.grad_scale, scaled.optimizer.found_inf = torch.tensor(64.0), torch.tensor(0.0)
        scaled.optimizer.step()
        plain.gradients(step)
        plain.optimizer.step()
    assert_equal(scaled.held(), plain.held())
