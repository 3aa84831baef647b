"""How processes share a model, each chosen by the ``_target_`` of the group ``strategy``.

Each of these makes a strategy and the precision that goes with it.
"""

from galpaca.training.strategies.fully_sharded import fsdp
from galpaca.training.strategies.fully_sharded2 import fsdp2
from galpaca.training.strategies.whole_model import ddp, single

__all__ = ["ddp", "fsdp", "fsdp2", "single"]
