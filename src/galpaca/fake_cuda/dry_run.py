"""A module that Inductor has generated, run line by line without its kernels: what it allocates, reuses and frees."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# At the beginning of a line, so not within the text of a kernel that is indented or quoted as a whole.
_LEFT_OUT = re.compile(
    r"^(import triton|from torch\._inductor\.runtime\.triton_heuristics|from torch\._C import _cuda_get)", re.MULTILINE
)


def load(code: str, constants: Mapping[str, Any]) -> Callable[[list[Any]], Any]:
    """The module's function: it takes all arguments in a list, and empties that.

    Args:
        constants: what the module finds by name.
    """
    head, _, rest = code.partition("async_compile = AsyncCompile()")
    names: dict[str, Any] = {"__name__": "generated", "__file__": ""}
    exec(compile(_LEFT_OUT.sub("# ", head), "<generated>", "exec"), names)
    names |= {"async_compile": _NoKernels(), **_ON_FAKE_TENSORS}
    exec(compile(rest, "<generated>", "exec"), names)
    names |= constants
    call: Callable[[list[Any]], Any] = names["call"]
    return call


class _Kernel:
    def run(self, *_: Any, **__: Any) -> None:
        pass


class _NoKernels:
    """Stands in for Inductor's compiler of kernels."""

    def triton(self, *_: Any, **__: Any) -> _Kernel:
        return _Kernel()

    def wait(self, names: object) -> None:
        pass


def _empty(size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device="cuda")


def _as_is(tensor: Tensor) -> Tensor:
    return tensor


_ON_FAKE_TENSORS: dict[str, Any] = {
    "empty_strided_cuda": _empty,
    "reinterpret_tensor": torch.as_strided,
    "copy_if_misaligned": _as_is,
    "assert_size_stride": lambda *_: None,
    "assert_alignment": lambda *_: None,
    "get_raw_stream": lambda _: 0,
}
