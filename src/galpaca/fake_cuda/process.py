"""A process that has a pretended card, from here to its end."""

import runpy
import sys
from collections.abc import Sequence

from galpaca.fake_cuda import library
from galpaca.fake_cuda.card import CARDS, Card


def become(card: Card) -> None:
    """Gives this process a card that is not there; there is no way back, and torch must not be imported before.

    From then on ``FakeTensorMode`` takes the device ``cuda``, and what is compiled for it is recorded
    (``inductor.recorded``). Tensors outside of the mode stay on the CPU.

    Raises:
        InputError: see ``library.load``.
    """
    library.load()
    from galpaca.fake_cuda import inductor, runtime  # they import torch

    runtime.answer_for(card)
    inductor.record()


def command(card: str, module: str, *arguments: str) -> list[str]:
    """The command that runs a module in a process with a card of ``CARDS``."""
    return [sys.executable, "-m", "galpaca.fake_cuda", card, module, *arguments]


def run(card: str, module: str, arguments: Sequence[str]) -> None:
    """Runs a module as ``python -m`` does, with a card; the process is of no other use afterwards."""
    become(CARDS[card])
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
