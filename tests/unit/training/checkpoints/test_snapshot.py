"""The copy that is written while training goes on."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from galpaca.model.tensor_file import write_tensor_file
from galpaca.training.checkpoints import snapshot
from galpaca.training.checkpoints.snapshot import Snapshot, updates_taken
from galpaca.training.compact_adamw import CompactAdamW
from galpaca.training.parts import whole_parts


def trained(kind: type[torch.optim.Optimizer]) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7))
    optimizer = kind(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(2, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("slab_bytes", [8, 64, 1 << 30])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, CompactAdamW])
def test_a_snapshot_holds_weights_and_moments_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slab_bytes: int, copied: bool, kind: type[torch.optim.Optimizer]
) -> None:
    """Whatever comes after it, and however its buffer is cut; bfloat16 moments stay bfloat16."""
    monkeypatch.setattr(snapshot, "_SLAB_BYTES", slab_bytes)
    model, optimizer = trained(kind)
    expected = {f"weight/{name}/0": parameter.detach().clone() for name, parameter in model.named_parameters()}
    for moment in ("exp_avg", "exp_avg_sq"):
        for name, parameter in model.named_parameters():
            expected[f"{moment}/{name}/0"] = optimizer.state[parameter][moment].clone()
    taken = Snapshot(whole_parts(model), optimizer)
    if copied:
        taken.copy(None)
        optimizer.step()  # must not show
    write_tensor_file(tmp_path / "file.safetensors", taken.entries, taken.values())
    read = load_file(tmp_path / "file.safetensors")
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.view(-1)), name
    assert updates_taken(optimizer) == (4 if copied else 3)


def test_the_buffer_is_used_again() -> None:
    model, optimizer = trained(torch.optim.AdamW)
    buffer = Snapshot(whole_parts(model), optimizer).copy(None)
    assert Snapshot(whole_parts(model), optimizer).copy(buffer) is buffer


def test_before_the_first_update_there_are_no_moments() -> None:
    """As when a loss scaler has left out every step so far."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    taken = Snapshot(whole_parts(model), optimizer)
    assert [entry.name for entry in taken.entries] == ["weight/weight/0", "weight/bias/0"]
    assert updates_taken(optimizer) == 0
