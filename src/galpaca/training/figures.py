"""Further figures of a step, which callbacks of a user measure."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from galpaca.errors import GalpacaError

Figures = Mapping[str, Tensor | float]


def check_figures(figures: Figures) -> None:
    """Checks figures for what their names and values must be, without waiting for the device.

    Raises:
        GalpacaError: a name without its group, which the line's own figures never have, or a value that is no scalar.
    """
    for name, value in figures.items():
        if name.count("/") != 1 or not all(name.split("/")):
            raise GalpacaError(
                f"the figure {name!r} has no group",
                where="callbacks",
                fix=f"call it GROUP/NAME, such as mine/{name.strip('/').replace('/', '_')}",
            )
        if isinstance(value, Tensor) and value.numel() != 1:
            raise GalpacaError(f"the figure {name!r} has {value.numel()} values", where="callbacks", fix="give one")


def read_figures(steps: Sequence[Figures], device: torch.device) -> list[dict[str, float]]:
    """The figures of some steps as numbers, read from the device at once."""
    tensors = [value for figures in steps for value in figures.values() if isinstance(value, Tensor)]
    read: list[float] = []
    if tensors:
        read = torch.stack([one.detach().reshape(()).to(device, torch.float64) for one in tensors]).tolist()
    values = iter(read)
    return [
        {name: next(values) if isinstance(value, Tensor) else float(value) for name, value in figures.items()}
        for figures in steps
    ]
