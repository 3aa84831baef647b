"""The copy that is written while training goes on."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from galpaca.errors import GalpacaError
from galpaca.model.parts import whole_parts
from galpaca.model.tensor_file import write_tensor_file
from galpaca.training.checkpoints import snapshot
from galpaca.training.checkpoints.snapshot import Snapshot
from galpaca.training.checkpoints.store import CheckpointStore
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.optimizers.factory import OptimizerFactory
from galpaca.training.optimizers.state import updates_made

MOMENTS = ("exp_avg", "exp_avg_sq")


def trained(factory: OptimizerFactory) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7))
    optimizer = factory.make([{"params": list(model.parameters()), "lr": 0.1}])
    for _ in range(3):
        model(torch.randn(2, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("slab_bytes", [8, 64, 1 << 30])
@pytest.mark.parametrize("factory", [AdamW(), AdamW(moments_dtype="bfloat16")], ids=["float32", "bfloat16"])
def test_a_snapshot_holds_weights_and_moments_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slab_bytes: int, copied: bool, factory: OptimizerFactory
) -> None:
    """Whatever comes after it, and however its buffer is cut; bfloat16 moments stay bfloat16."""
    monkeypatch.setattr(snapshot, "_SLAB_BYTES", slab_bytes)
    model, optimizer = trained(factory)
    expected = {f"weight/{name}/0": parameter.detach().clone() for name, parameter in model.named_parameters()}
    for moment in MOMENTS:
        for name, parameter in model.named_parameters():
            expected[f"{moment}/{name}/0"] = optimizer.state[parameter][moment].clone()
    taken = Snapshot(whole_parts(model), optimizer, MOMENTS)
    if copied:
        taken.copy(None)
        optimizer.step()  # must not show
    write_tensor_file(tmp_path / "file.safetensors", taken.entries, taken.values())
    read = load_file(tmp_path / "file.safetensors")
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.view(-1)), name
    assert updates_made(optimizer) == (4 if copied else 3)


def test_the_buffer_is_used_again() -> None:
    model, optimizer = trained(AdamW())
    buffer = Snapshot(whole_parts(model), optimizer, MOMENTS).copy(None)
    assert Snapshot(whole_parts(model), optimizer, MOMENTS).copy(buffer) is buffer


@pytest.mark.parametrize("factory", [AdamW(), AdamW(moments_dtype="bfloat16")], ids=["float32", "bfloat16"])
def test_room_that_is_reserved_before_the_first_step_is_what_a_checkpoint_takes(factory: OptimizerFactory) -> None:
    """Taken within a step, a GPU's kind of host memory would keep the step waiting for seconds."""
    model, optimizer = trained(factory)
    parts = whole_parts(model)
    store = CheckpointStore(None, {part.name: part.shape for part in parts}, factory)
    store.reserve(parts)
    reserved = store._buffer
    assert reserved is not None
    assert Snapshot(parts, optimizer, MOMENTS).copy(reserved) is reserved
    store.free()
    assert store._buffer is None


def test_before_the_first_update_there_are_no_moments() -> None:
    """As when a loss scaler has left out every step so far."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    taken = Snapshot(whole_parts(model), optimizer, MOMENTS)
    assert [entry.name for entry in taken.entries] == ["weight/weight/0", "weight/bias/0"]
    assert updates_made(optimizer) == 0


@pytest.mark.parametrize("kinds", [("exp_avg",), (*MOMENTS, "max_exp_avg_sq"), ()])
def test_state_other_than_the_optimizer_names_is_refused_and_not_left_out(kinds: tuple[str, ...]) -> None:
    """An optimizer may begin to keep something late, when what it was tried on is long gone."""
    model, optimizer = trained(AdamW())
    with pytest.raises(GalpacaError, match=r"the optimizer keeps .*exp_avg_sq"):
        Snapshot(whole_parts(model), optimizer, kinds)
