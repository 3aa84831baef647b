"""Listens to a traced step: by which sizes memory grows and shrinks, window by window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from bench.timelines.sizes import NUM_SHARDS, Terms
from galpaca.fake_cuda.live import LiveBytes
from galpaca.model.layer_unit import LayerUnit

Bytes = dict[str, float]
_NOTHING = 1e-9


class Window(NamedTuple):
    """A stretch of a step.

    Attributes:
        name: ``forward 2``, and so on.
        before: bytes of all that is there at its beginning.
        beside: those of them that are neither of weights nor of moments.
        left: by how much more there are at its end.
        points: how many more there are at each allocation within.
    """

    name: str
    before: int
    beside: Bytes
    left: Bytes
    points: list[Bytes]


class Recorder(LiveBytes):
    """Counts by sizes; ``windows`` has all that are over."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__(mode)
        self.terms = Terms()
        self.windows: list[Window] = []
        # Of this rank, by sizes: weights with moments, and gradients.
        self.always: defaultdict[str, float] = defaultdict(float)
        self.gradients: defaultdict[str, float] = defaultdict(float)
        self._held: defaultdict[str, float] = defaultdict(float)
        self._sizes: dict[int, tuple[str, float, int]] = {}
        self._itemsize = 1
        self._itemsizes: dict[int, int] = {}
        self._bytes_before = 0
        self._name = ""
        self._before: Bytes = {}
        self._points: list[Bytes] = []

    def begin(self, name: str) -> None:
        """Ends a window, and begins the next."""
        if self._name:
            left = _difference(self._held, self._before)
            beside = _difference(self._before, self.always)
            self.windows.append(Window(self._name, self._bytes_before, beside, left, self._points))
        self._name, self._before, self._bytes_before, self._points = name, dict(self._held), self.now, []

    def restart(self) -> int:
        """The update begins, or is over: so does a window."""
        self.begin("update")
        return super().restart()

    def add(self, value: object) -> None:
        self._itemsize = value.element_size() if isinstance(value, torch.Tensor) else 1
        super().add(value)

    def _count(self, storage: torch.UntypedStorage) -> None:
        super()._count(storage)
        key, num_bytes = storage._cdata, storage.nbytes()
        had = self._forget(key)
        itemsize = self._itemsizes.setdefault(key, self._itemsize)  # one that is resized comes without its tensor
        if num_bytes:
            name, times = self.terms.of(num_bytes // itemsize)
            self._sizes[key] = name, times * itemsize, num_bytes
            self._held[name] += times * itemsize
        if num_bytes > had:
            self._points.append(_difference(self._held, self._before))

    def _forget(self, key: int) -> int:
        """Takes a storage out; gives the bytes that it had."""
        name, size, num_bytes = self._sizes.pop(key, ("", 0.0, 0))
        self._held[name] -= size
        return num_bytes

    def _gone(self, key: int) -> None:
        super()._gone(key)
        self._forget(key)
        self._itemsizes.pop(key, None)


def listen(model: PreTrainedModel, recorder: Recorder, *, is_sharded: bool) -> None:
    """Begins a window wherever the step comes to another part of the model."""
    units = [module for module in model.modules() if isinstance(module, LayerUnit)]
    recorder.terms = _terms(model, units, is_sharded)
    for parameter in model.parameters():
        _note_held(recorder, parameter, NUM_SHARDS if is_sharded else 1)
    last = len(units) - 1

    def before(index: int) -> Any:
        def note(unit: object, inputs: tuple[torch.Tensor, ...], others: object) -> None:
            if index == 0 and inputs[0].requires_grad:
                inputs[0].register_hook(lambda _: recorder.begin("embedding backward"))
            recorder.begin(f"forward {index}")

        return note

    def after(index: int) -> Any:
        def note(unit: object, inputs: object, output: torch.Tensor) -> None:
            if index == last:
                recorder.begin("head")
            output.register_hook(lambda _: recorder.begin(f"backward {index}"))

        return note

    model.register_forward_pre_hook(lambda *_: recorder.begin("embedding"))
    for index, unit in enumerate(units):
        unit.register_forward_pre_hook(before(index), with_kwargs=True)
        unit.register_forward_hook(after(index))


def _note_held(recorder: Recorder, parameter: torch.nn.Parameter, num_shards: int) -> None:
    name, times = recorder.terms.of(-(-parameter.numel() // num_shards))
    recorder.always[name] += parameter.element_size() * times
    if parameter.requires_grad:
        recorder.always[name] += 8.0 * times
        recorder.gradients[name] += 4.0 * times


def _terms(model: PreTrainedModel, units: list[LayerUnit], is_sharded: bool) -> Terms:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if not is_sharded:
        return Terms({trained: "trained"})  # as DDP has all gradients in one bucket at first
    in_units = {parameter for unit in units for parameter in unit.parameters()}
    of_root = [parameter for parameter in model.parameters() if parameter not in in_units]
    whole: dict[int, str] = {}
    for name, parameters in (("layer", list(units[1].parameters())), ("root", of_root)):
        whole.setdefault(sum(one.numel() for one in parameters), name)
        # What is of several dtypes is gathered as bytes.
        whole.setdefault(sum(one.numel() * one.element_size() for one in parameters), f"{name}_bytes")
    for number, name in list(whole.items()):
        whole.setdefault(-(-number // NUM_SHARDS) * NUM_SHARDS, name)
    return Terms(whole, is_sharded)


def _difference(after: Mapping[str, float], before: Mapping[str, float]) -> Bytes:
    found = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in {*after, *before}}
    return {name: value for name, value in found.items() if abs(value) > _NOTHING}
