"""Operations for which the host waits for the card, or would: it reads a value, or a shape that depends on values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS = {
    "_local_scalar_dense",  # item(), bool(), float() and int()
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
}


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
        if reads_card and op._schema.name.split("::")[1] in _READS:
            self.found.append(str(op))
        output = op(*args, **(kwargs or {}))
        if reads_card and not _on_card(output) and _is_filled(op, output):
            self.found.append(f"{op} to the host")
        return output


def _on_card(values: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.device.type == "cuda" for leaf in tree_leaves(values))


def _is_filled(op: Any, output: Any) -> bool:
    """Whether the output is a tensor with what was on the card, not only of its shape."""
    return isinstance(output, Tensor) and op.namespace == "aten" and not str(op).startswith("aten.empty")
