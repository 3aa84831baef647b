"""The parts of a model's parameters that a rank holds: what is filled at the start, saved, and restored."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from galpaca.model.tensors import TensorSource

# What the Lightning module calls the model that it trains: like no part of any model.
NETWORK = "network"
_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


@dataclass(frozen=True)
class Part:
    """Consecutive values of one parameter.

    Attributes:
        name: the parameter's in the family's model.
        shape: shape of the whole parameter.
        start: place of the first value in the whole parameter, flattened.
        stop: one past the last.
        parameter: as this rank has it; its values are those from ``held_from`` on.
        held_from: place of the parameter's first value on this rank.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int
    parameter: nn.Parameter
    held_from: int

    @property
    def num_values(self) -> int:
        return self.stop - self.start

    def of(self, tensor: Tensor) -> Tensor:
        """(stop - start,) view of this part in a tensor that is laid out like the parameter: itself, or a moment."""
        return tensor.detach().view(-1)[self.start - self.held_from : self.stop - self.held_from]

    def share(self, index: int, count: int) -> "Part":
        """The ``index``-th of ``count`` nearly equal pieces."""
        low, high = (self.start + self.num_values * edge // count for edge in (index, index + 1))
        return Part(self.name, self.shape, low, high, self.parameter, self.held_from)


def whole_parts(model: nn.Module) -> list[Part]:
    """All parameters of a model that is not sharded; a tied one once."""
    return [
        Part(plain_name(name), tuple(parameter.shape), 0, parameter.numel(), parameter, 0)
        for name, parameter in model.named_parameters()
    ]


def plain_name(name: str) -> str:
    """A parameter's name in the family's model, without what wrappers put in between."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name.removeprefix(f"{NETWORK}.")


def materialize(module: nn.Module, device: torch.device, made: dict[nn.Parameter, nn.Parameter]) -> None:
    """Gives a module's own meta parameters memory on a device, uninitialized; tied ones stay tied. What it has computed
    from its configuration (buffers) goes there as it is.

    Args:
        module: module whose own parameters are materialized, not its children's.
        made: parameters created so far, by meta parameter.
    """
    for name, parameter in module._parameters.items():
        if parameter is not None and parameter.is_meta:
            if parameter not in made:
                made[parameter] = nn.Parameter(torch.empty_like(parameter, device=device), parameter.requires_grad)
            module._parameters[name] = made[parameter]
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = buffer.to(device)


def materialize_all(model: nn.Module, device: torch.device) -> None:
    """Gives all of a model's meta parameters memory on one device, uninitialized; tied ones stay tied."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        materialize(module, device, made)


def fill(parts: Iterable[Part], source: TensorSource) -> None:
    """Reads all parts' values from a source, straight into the parts."""
    for part in parts:
        source.read(part.name, part.start, part.of(part.parameter))
