"""What a GPU needs for the same bits is set before it is used, and nothing of it on a CPU."""

import os
from collections.abc import Iterator

import pytest
import torch

from galpaca.errors import InputError
from galpaca.training.determinism import set_determinism, undeterministic_operation

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(WORKSPACE, "")  # which restores whatever there was
    monkeypatch.delenv(WORKSPACE)
    yield
    torch.use_deterministic_algorithms(False)


def test_a_gpu_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    set_determinism("gpu", True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled(), "attention's backward would add in any order"
    assert os.environ[WORKSPACE] == ":4096:8"
    monkeypatch.setenv(WORKSPACE, ":16:8")
    set_determinism("gpu", True)
    assert os.environ[WORKSPACE] == ":16:8"


@pytest.mark.parametrize(("accelerator", "deterministic"), [("gpu", False), ("cpu", True), ("cpu", False)])
def test_where_it_is_not_wanted_or_not_needed(accelerator: str, deterministic: bool) -> None:
    set_determinism(accelerator, deterministic)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_environment_that_excludes_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(InputError, match="CUBLAS_WORKSPACE_CONFIG=:0:0 lets cuBLAS add in any order"):
        set_determinism("gpu", True)
    set_determinism("gpu", False)


def test_an_operation_that_torch_refuses_is_named() -> None:
    said = "cumsum_cuda_kernel does not have a deterministic implementation, but you set 'torch.use_deterministic...'"
    assert undeterministic_operation(RuntimeError(said)) == "cumsum_cuda_kernel"
    assert undeterministic_operation(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) == ""
    assert undeterministic_operation(ValueError(said)) == ""
