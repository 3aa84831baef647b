"""A strategy of Lightning that saves and restores ranges; ``fit(ckpt_path=...)`` and its loop state work as ever."""

import math
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer

from galpaca.errors import GalpacaError, InputError
from galpaca.model.parts import Part
from galpaca.training.checkpoints.store import CheckpointStore, SaveTarget


class CheckpointingStrategy(Strategy):
    """Each rank writes and reads what it holds, through its ``store``."""

    global_rank: int
    # Where checkpoints go and come from; a run without it has none.
    store: CheckpointStore | None = None
    # What a run starts from is put in place after the model is, be it first weights or a checkpoint; nothing is
    # gathered to be saved, since each rank writes what it holds.
    restore_checkpoint_after_setup = True
    lightning_restore_optimizer = False

    def parts(self) -> list[Part]:
        """What this rank holds of the model."""
        raise NotImplementedError

    def replica(self) -> tuple[int, int]:
        """Which of how many copies of the same parts this rank holds."""
        return 0, 1

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return {}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Does nothing: ``load_checkpoint`` has put the weights in place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Takes what this rank holds, and returns while it is being written.

        Args:
            checkpoint: what Lightning keeps besides weights and the optimizer's state.
            filepath: folder that the ranks' files go to.
            storage_options: ``{"in_background": True}`` where training continues while it is written.
        """
        assert self.store is not None
        # Under one name, since each strategy's plugin has its own and the next run may take another strategy.
        plugin = type(self.precision_plugin).__qualname__
        state = {key: value for key, value in checkpoint.items() if key != plugin}
        state["precision"] = checkpoint.get(plugin)
        index, count = self.replica()
        parts = [part.share(index, count) for part in self.parts() if part.name in self.store.saved_shapes]
        target = SaveTarget(Path(filepath), checkpoint["global_step"], self.global_rank)
        self.store.save(target, state, parts, self.optimizers[0], **storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Puts in place what the run starts from.

        Args:
            checkpoint_path: rank 0's value counts, since rank 0 has verified it.
            weights_only: not used.
        """
        assert self.store is not None
        parts = self.parts()
        self._check_nothing_is_lost(parts)
        path = Path(self.broadcast(str(checkpoint_path)))
        self._check_all_can_write(path.parent)
        state = self._load_together(path, parts)
        precision = state.pop("precision", None)
        return state | ({type(self.precision_plugin).__qualname__: precision} if precision else {})

    def _load_together(self, path: Path, parts: Sequence[Part]) -> dict[str, Any]:
        """A rank that cannot read reports it to the others, which would wait for it."""
        assert self.store is not None
        state: dict[str, Any] = {}
        failure: GalpacaError | None = None
        try:
            state = self.store.load(path, parts, self.optimizers[0])
        except GalpacaError as error:
            failure = error
        count = self._sum(failure is not None)
        if failure is not None:
            failure.of_one_rank = True
            raise failure
        if count:
            raise InputError(f"{count} of the run's processes cannot read it", where=path, why="check their logs")
        return state

    def _sum(self, number: int) -> int:
        """Over all ranks, exact below 2 ** 53."""
        own = torch.tensor(float(number), dtype=torch.float64, device=self.root_device)
        return int(self.reduce(own, reduce_op="sum"))

    def _check_all_can_write(self, folder: Path) -> None:
        """Before the first step, on every node."""
        assert self.store is not None
        refusal = self.store.refusal(folder, self.global_rank)
        if count := self._sum(bool(refusal)):
            raise InputError(
                f"{count} of the run's processes cannot write checkpoints",
                where=f"{folder} on {socket.gethostname()}",
                why=refusal or "another node cannot see the folder or has no write permission",
                fix="run.root=FOLDER on a file system that all nodes share",
            )

    def _check_nothing_is_lost(self, parts: Sequence[Part]) -> None:
        """All ranks together hold every value of every parameter once, or once for each copy."""
        assert self.store is not None
        index, count = self.replica()
        total = self._sum(sum(part.share(index, count).num_values for part in parts))
        expected = sum(math.prod(shape) for shape in self.store.shapes.values())
        if total != expected:
            raise GalpacaError(
                f"the ranks hold {total:,} of {expected:,} parameters",
                where="strategy",
                why="this version of torch shards models in a way that galpaca does not support",
                fix="use a torch version from pyproject.toml, or strategy=ddp",
            )
