"""Bytes that one operation reads and writes, by its schema: what is not compiled is a kernel of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

# Their tensors say a shape, or are overwritten unread.
_READ_NOTHING = {"empty_like", "zeros_like", "ones_like", "full_like", "randint_like", "rand_like", "bernoulli_"}
_OVERWRITE = {"copy_", "fill_", "zero_"}
_WRITE_NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
# They read as many rows as they write, and not the whole table.
_TAKE_ROWS = {"embedding", "index", "index_select", "gather", "nll_loss_forward"}


@dataclass(frozen=True)
class Moved:
    """An operation, and what it moves.

    Attributes:
        op: torch's name, such as ``aten.add_.Tensor``.
        shapes: of the tensors it reads, then of those it writes.
        read_bytes, written_bytes: each tensor once.
    """

    op: str
    shapes: tuple[tuple[int, ...], ...]
    read_bytes: int
    written_bytes: int

    @property
    def moved_bytes(self) -> int:
        return self.read_bytes + self.written_bytes


def moved(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> Moved:
    """What an operation moves.

    Args:
        op: overload, such as ``torch.ops.aten.add_.Tensor``.
        args, kwargs, output: of its call.
    """
    name = name_of(op)
    read, written = _of_arguments(op, name, args, kwargs)
    given = {_address(tensor) for tensor in _tensors((args, kwargs))}
    made = [] if name in _WRITE_NOTHING else [one for one in _made(op, output) if _address(one) not in given]
    if not made and not written:
        read = []  # a view, whatever torch calls it, or memory that nothing was written to
    if name in _TAKE_ROWS:
        read = [*made, *(tensor for tensor in read if not tensor.is_floating_point())]
    written = [*written, *made]
    return Moved(
        op=str(op),
        shapes=tuple(tuple(tensor.shape) for tensor in (*read, *written)),
        read_bytes=sum(map(_num_bytes, read)),
        written_bytes=sum(map(_num_bytes, written)),
    )


def name_of(op: Any) -> str:
    """Torch's name of an operation, whatever its overload: ``add_`` of ``aten.add_.Tensor``."""
    return str(op).split(".")[1]


def _of_arguments(
    op: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Tensor], list[Tensor]]:
    """The arguments that it reads, and those that it writes."""
    read: list[Tensor] = []
    written: list[Tensor] = []
    for argument, value in _named(op, args, kwargs):
        tensors = list(_tensors(value))
        changes = argument.alias_info is not None and argument.alias_info.is_write
        if not argument.is_out and name not in _READ_NOTHING and not (changes and name in _OVERWRITE):
            read += tensors
        if changes and not _is_left_alone(name, argument.name, kwargs):
            written += tensors
    return read, written


def _named(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    for place, argument in enumerate(op._schema.arguments):
        yield argument, args[place] if place < len(args) else kwargs.get(argument.name)


def _is_left_alone(name: str, argument: str, kwargs: Mapping[str, Any]) -> bool:
    """Torch's fused optimizers write gradients back only where they unscale them, and no count is worth counting."""
    return name.startswith("_fused_") and argument == "grads" and kwargs.get("grad_scale") is None


def _made(op: Any, output: Any) -> list[Tensor]:
    """What it returns and has made, not been given."""
    returns = op._schema.returns
    values = output if isinstance(output, tuple | list) and len(returns) > 1 else [output]
    return [
        tensor
        for returned, value in zip(returns, values, strict=False)
        if returned.alias_info is None
        for tensor in _tensors(value)
    ]


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
