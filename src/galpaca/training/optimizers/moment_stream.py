"""Moments in host memory, of which a few pieces at a time are on the device.

While one piece is updated, the next one is on its way in and the one before on its way out, each way in a stream of its
own. On a CPU, device and host are one, and the copies are made one after the other.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from galpaca.training.optimizers.adamw_update import Piece, PieceUpdate

# One on its way in, one at work, one on its way out.
_NUM_SLOTS = 3


def moments_like(parameter: Tensor, dtype: torch.dtype, *, on_host: bool) -> Tensor:
    """Zeros of a parameter's shape; in host memory, of the kind that a GPU reads and writes by itself."""
    if not on_host:
        return torch.zeros_like(parameter, dtype=dtype)
    return torch.zeros(parameter.shape, dtype=dtype, pin_memory=parameter.is_cuda)


class _Mark:
    """A point in a stream's work that another stream waits for, while the host goes on; nothing on a CPU.

    Streams are those of its device, which need not be the current one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event = torch.cuda.Event() if device.type == "cuda" else None

    def set(self) -> None:
        """Here, in the current stream."""
        if self._event is not None:
            torch.cuda.current_stream(self._device).record_event(self._event)

    def wait(self) -> None:
        """Has the current stream wait for it."""
        if self._event is not None:
            torch.cuda.current_stream(self._device).wait_event(self._event)


class _Slot:
    """Room on the device for the two moments of a piece."""

    def __init__(self, num_values: int, dtype: torch.dtype, device: torch.device) -> None:
        self._room = [torch.empty(num_values, dtype=dtype, device=device) for _ in range(2)]
        self.is_free, self.is_filled, self.is_updated = (_Mark(device) for _ in range(3))
        self.is_free.set()  # when the stream has passed whoever had this memory before

    def fill(self, update: PieceUpdate) -> PieceUpdate:
        """The same update with moments in this room."""
        self.is_free.wait()
        piece = update.piece
        first, second = (room[: len(piece.first)] for room in self._room)
        first.copy_(piece.first, non_blocking=True)
        second.copy_(piece.second, non_blocking=True)
        self.is_filled.set()
        return PieceUpdate(Piece(piece.weights, piece.gradients, first, second), update.scalars, update.rule)

    def empty(self, update: PieceUpdate) -> None:
        """Back to where they came from."""
        self.is_updated.wait()
        for moment, room in zip((update.piece.first, update.piece.second), self._room, strict=True):
            moment.copy_(room[: len(moment)], non_blocking=True)
        self.is_free.set()


class MomentStream:
    """The way of one step's updates through all moments.

    Args:
        num_values: of the largest piece.
        dtype: of moments.
        device: that updates them.
    """

    def __init__(self, num_values: int, dtype: torch.dtype, device: torch.device) -> None:
        self._slots = [_Slot(num_values, dtype, device) for _ in range(_NUM_SLOTS)]
        self._ways = [torch.cuda.Stream(device) for _ in range(2)] if device.type == "cuda" else []

    def around(self, updates: Iterable[PieceUpdate]) -> Iterator[PieceUpdate]:
        """The same updates with moments on the device, to be made before the next one is requested."""
        before: tuple[_Slot, PieceUpdate, PieceUpdate] | None = None
        for number, on_host in enumerate(updates):
            slot = self._slots[number % _NUM_SLOTS]
            with self._way(0):
                on_device = slot.fill(on_host)
            if before is not None:
                yield from self._lend(*before)
            before = slot, on_host, on_device
        if before is not None:
            yield from self._lend(*before)
        for slot in self._slots:
            slot.is_free.wait()  # whoever gets this memory next, or waits for the device, comes after the last copy

    def _lend(self, slot: _Slot, on_host: PieceUpdate, on_device: PieceUpdate) -> Iterator[PieceUpdate]:
        slot.is_filled.wait()
        yield on_device
        slot.is_updated.set()
        with self._way(1):
            slot.empty(on_host)

    def _way(self, number: int) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._ways[number]) if self._ways else nullcontext()
