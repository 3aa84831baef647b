"""What Python's half of torch asks of a CUDA device, answered for a card that is not there."""

from typing import Any

import torch
import torch.cuda.amp.common
from torch._dynamo.device_interface import CudaInterface

from galpaca.fake_cuda.card import Card
from galpaca.fake_cuda.streams import answer_for_streams

# Any from 12 on does: Inductor only compares it.
_CUDA_VERSION = "13.0"


def answer_for(card: Card) -> None:
    """Answers for the card, for good.

    ``torch.cuda.is_available`` stays False: where it is asked, torch goes on to what only a driver can do, such as
    reading the state of a generator.
    """
    _autocast_and_scaler()
    _properties(card)
    answer_for_streams()
    torch.version.cuda = _CUDA_VERSION


def _autocast_and_scaler() -> None:
    """Both disable themselves where there is no card."""
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_, **__: True


def _properties(card: Card) -> None:
    of_card: dict[str, Any] = {
        "get_device_properties": lambda *_, **__: card,
        "get_device_capability": lambda *_, **__: card.capability,
        "get_device_name": lambda *_: card.name,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "_exchange_device": lambda *_: 0,
        "_maybe_exchange_device": lambda *_: 0,
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
    }
    for name, answer in of_card.items():
        setattr(torch.cuda, name, answer)
    interface: Any = CudaInterface  # the same questions, as the compiler asks them
    interface.get_device_properties = interface.Worker.get_device_properties = staticmethod(lambda *_, **__: card)
    interface.get_compute_capability = staticmethod(lambda *_: card.major * 10 + card.minor)
    interface.is_available = interface.is_bf16_supported = staticmethod(lambda *_, **__: True)
    interface.current_device = staticmethod(lambda: 0)
