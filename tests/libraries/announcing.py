"""A callback that announces something in the midst of training, as a library would."""

import warnings

import lightning as L

MESSAGE = "planted is deprecated and will be removed"


class Announcing(L.Callback):
    """Warns in torch's name before the first step, when training has set its filters."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        warnings.warn_explicit(MESSAGE, FutureWarning, "torch/planted.py", 1, module="torch.planted")
