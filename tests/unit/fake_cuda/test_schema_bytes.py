"""Bytes of single operations, against what their kernels do."""

from typing import Any

import pytest
import torch
from torch import Tensor

from galpaca.fake_cuda.schema_bytes import moved

aten = torch.ops.aten


def of(op: Any, *args: Any, **options: Any) -> tuple[int, int]:
    """Bytes that a call reads and writes."""
    found = moved(op, args, options, op(*args, **options))
    return found.read_bytes, found.written_bytes


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        (aten.mul.Tensor, (meta(100), meta(100)), (800, 400)),
        (aten.add_.Tensor, (meta(100), meta(100)), (800, 400)),
        (aten.copy_.default, (meta(100, dtype=torch.bfloat16), meta(100)), (400, 200)),
        (aten.zero_.default, (meta(100),), (0, 400)),
        (aten.empty_like.default, (meta(100),), (0, 0)),
        (aten.zeros_like.default, (meta(100),), (0, 400)),
        (aten.linalg_vector_norm.default, (meta(100),), (400, 4)),
        (aten._foreach_mul_.Scalar, ([meta(100), meta(50)], 2.0), (600, 600)),
        (aten._unsafe_view.default, (meta(10, 10), [100]), (0, 0)),
        (aten.embedding.default, (meta(1_000, 8), meta(10, dtype=torch.int64)), (320 + 80, 320)),
    ],
    ids=lambda value: str(value) if hasattr(value, "_schema") else "",
)
def test_an_operation(op: Any, args: Any, expected: tuple[int, int]) -> None:
    assert of(op, *args) == expected


def test_what_is_written_into_a_given_tensor_is_not_read() -> None:
    flag, values, out = meta(dtype=torch.bool), meta(100), meta(100)
    assert of(aten.where.self_out, flag, values, values, out=out) == (801, 400)


@pytest.mark.parametrize(("scale", "bytes_a_parameter"), [(None, 28), (meta(), 32)])
def test_fused_adamw(scale: Tensor | None, bytes_a_parameter: int) -> None:
    """Reads weights, gradients and two moments and writes all but gradients, or those too where it unscales them."""
    options = {"lr": 1.0, "beta1": 0.9, "beta2": 0.9, "weight_decay": 0.0, "eps": 1e-8, "amsgrad": False}
    tensors = [[meta(1_000)] for _ in range(4)]
    args = (*tensors, [], [meta()])
    found = moved(aten._fused_adamw_.default, args, {**options, "maximize": False, "grad_scale": scale}, None)
    assert found.moved_bytes == pytest.approx(bytes_a_parameter * 1_000, abs=10)
