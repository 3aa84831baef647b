"""The invariants that ``bench.gpu`` checks: on the GPU where there is one, and that they run at all on a CPU."""

import pytest
import torch

from bench.gpu.invariants import CHECKS, compiled_equals_eager

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [name for name in CHECKS if CHECKS[name] is not compiled_equals_eager])
def test_in_float32(name: str, device: str) -> None:
    found = CHECKS[name](torch.device(device), torch.float32)
    assert found["passed"], found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CHECKS)
def test_in_16_bits(name: str, dtype: torch.dtype) -> None:
    found = CHECKS[name](torch.device("cuda"), dtype)
    assert found["passed"], found
