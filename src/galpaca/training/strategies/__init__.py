"""How processes share a model, each chosen by the ``_target_`` of the group ``strategy``; cheap to import."""

from galpaca.training.strategies.shipped import Ddp, Fsdp, Fsdp2, Single

# Under which configurations know them.
single, ddp, fsdp, fsdp2 = Single, Ddp, Fsdp, Fsdp2

__all__ = ["Ddp", "Fsdp", "Fsdp2", "Single", "ddp", "fsdp", "fsdp2", "single"]
