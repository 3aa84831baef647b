"""Operations for which the host waits for the card, or would: it reads a value, or a shape that depends on values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from galpaca.fake_cuda.schema_bytes import name_of

# Take rows by number without a read, and by a mask with one.
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


@contextmanager
def host_reads() -> Iterator[list[str]]:
    """Names, by torch, of the reads that eager operations in the context make, the refused ones too.

    Fake tensors raise at most of them, and torch compiles none of them into one graph.
    """
    mode = _Watching()
    with mode:
        yield mode.found


class _Watching(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Else the compiler would leave all that runs under the mode uncompiled."""
        return True

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads_card = _on_card((args, kwargs))
        if reads_card and _depends_on_values(op, (args, kwargs)):
            self.found.append(str(op))
        output = op(*args, **(kwargs or {}))
        if reads_card and not _on_card(output) and _is_filled(op, output):
            self.found.append(f"{op} to the host")
        return output


def _depends_on_values(op: Any, values: Any) -> bool:
    """Whether what it gives the host, a number or a shape, depends on values; torch marks such operations."""
    if name_of(op) in _INDEXING:
        return any(isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(values))
    return torch.Tag.data_dependent_output in op.tags or torch.Tag.dynamic_output_shape in op.tags


def _on_card(values: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.device.type == "cuda" for leaf in tree_leaves(values))


def _is_filled(op: Any, output: Any) -> bool:
    """Whether the output is a tensor with what was on the card, not only of its shape."""
    return isinstance(output, Tensor) and op.namespace == "aten" and not str(op).startswith("aten.empty")
