"""What a rank holds at one moment: copied to the host, so that training continues, or read where it is."""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from galpaca.errors import GalpacaError
from galpaca.model.checkpoint_tensors import WEIGHT, piece_name
from galpaca.model.parts import Part
from galpaca.model.tensor_file import TensorEntry
from galpaca.model.tensors import chunks, dtype_name
from galpaca.training.optimizers.state import STEP

# A power of two, which torch's allocator of pinned memory would round up to.
_SLAB_BYTES = 1 << 30


class HostBuffer:
    """Host memory that is kept from one checkpoint to the next; pinned for a GPU, whose copies it speeds up.

    It lies in slabs: one block would be rounded up to a power of two, up to twice its size.
    """

    def __init__(self, num_bytes: int, *, pinned: bool) -> None:
        sizes = [min(_SLAB_BYTES, num_bytes - start) for start in range(0, num_bytes, _SLAB_BYTES)]
        self.num_bytes = num_bytes
        self.slabs = [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for size in sizes]

    def put(self, offset: int, values: Tensor) -> None:
        """Copies the bytes of flat values to an offset, without waiting for a GPU."""
        source = values.view(torch.uint8)
        while len(source):
            slab, start = divmod(offset, _SLAB_BYTES)
            room = self.slabs[slab][start : start + len(source)]
            room.copy_(source[: len(room)], non_blocking=True)
            source, offset = source[len(room) :], offset + len(room)


class Snapshot:
    """A rank's file to be: tensors and their values in the same order.

    Args:
        parts: parameter parts of this rank.
        optimizer: optimizer whose state is saved too, if it has made an update.
        kinds: names of all its state of a parameter's shape.

    Attributes:
        state_dtypes: dtype of each kind of state that is saved.

    Raises:
        GalpacaError: the optimizer has other state.
    """

    def __init__(self, parts: Sequence[Part], optimizer: Optimizer, kinds: Collection[str]) -> None:
        self._tensors = [(_entry(WEIGHT, part, part.parameter), part.of(part.parameter)) for part in parts]
        self.state_dtypes: dict[str, str] = {}
        states = [_checked_state(optimizer, part, kinds) for part in parts]
        for kind in kinds:
            for part, state in zip(parts, states, strict=True):
                if state:
                    self.state_dtypes[kind] = dtype_name(state[kind].dtype)
                    self._tensors.append((_entry(kind, part, state[kind]), part.of(state[kind])))
        self._buffer: HostBuffer | None = None

    @property
    def entries(self) -> list[TensorEntry]:
        return [entry for entry, _ in self._tensors]

    def copy(self, buffer: HostBuffer | None) -> HostBuffer:
        """Copies all values to the host and returns when they are there: what comes after does not show.

        Args:
            buffer: buffer of the previous snapshot, reused if it fits.
        """
        num_bytes = sum(entry.num_bytes for entry in self.entries)
        on_gpu = any(values.is_cuda for _, values in self._tensors)
        if on_gpu:  # what is in host memory may still be on its way there
            torch.cuda.current_stream().synchronize()
        if buffer is None or buffer.num_bytes != num_bytes:
            buffer = None  # given back before there is another
            buffer = HostBuffer(num_bytes, pinned=on_gpu)
        offset = 0
        for entry, values in self._tensors:
            buffer.put(offset, values)
            offset += entry.num_bytes
        if on_gpu:
            torch.cuda.current_stream().synchronize()
        self._buffer = buffer
        return buffer

    def values(self) -> Iterator[Tensor]:
        """On the CPU, in pieces; without a copy they are those of the moment at which they are requested."""
        if self._buffer is not None:
            yield from self._buffer.slabs
            return
        for _, values in self._tensors:
            for start, stop in chunks(len(values)):
                yield values[start:stop].cpu()


def _checked_state(optimizer: Optimizer, part: Part, kinds: Collection[str]) -> dict[str, Tensor]:
    """The optimizer's state of a parameter; empty before its first update."""
    state: dict[str, Tensor] = optimizer.state.get(part.parameter) or {}
    held = {name: tuple(value.shape) for name, value in state.items() if name != STEP}
    if state and held != dict.fromkeys(kinds, tuple(part.parameter.shape)):
        raise GalpacaError(
            f"the optimizer keeps {held or 'nothing'} of {part.name}",
            where="optim._target_",
            why=f"a checkpoint holds what it names, in the shape of the parameter: {', '.join(kinds) or 'nothing'}",
        )
    return state


def _entry(kind: str, part: Part, tensor: Tensor) -> TensorEntry:
    return TensorEntry(piece_name(kind, part.name, part.start), tensor.dtype, (part.num_values,))
