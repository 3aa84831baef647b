"""Where Lightning's strategies save to and restore from: a rank's side of a checkpoint."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning import __version__ as lightning_version
from torch.optim import Optimizer

from galpaca.errors import GalpacaError
from galpaca.files.atomic import replace_file
from galpaca.files.checksums import file_facts
from galpaca.model.checkpoint_tensors import WEIGHT, CheckpointTensors
from galpaca.model.parts import Part, fill
from galpaca.model.tensor_file import write_tensor_file
from galpaca.model.tensors import Shapes, TensorSource, check_shapes, dtype_name
from galpaca.model.tuning.full import FullTuning
from galpaca.model.tuning.method import TuningMethod
from galpaca.runs.checkpoints import TRAINER, SavedOptimizer, rank_file, read_manifest, write_report
from galpaca.runs.folder import step_of
from galpaca.training.checkpoints.background import Background
from galpaca.training.checkpoints.snapshot import HostBuffer, Snapshot
from galpaca.training.memory import give_back_pinned_memory
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.optimizers.factory import OptimizerFactory
from galpaca.training.optimizers.saved import check_saved_state, saved_state
from galpaca.training.optimizers.state import begin_state, first_state, updates_made

# Lightning asks for these of whatever it restores.
_NOTHING_TO_RESTORE = {"pytorch-lightning_version": lightning_version, "lr_schedulers": []}


@dataclass(frozen=True)
class SaveTarget:
    """Where a rank saves to.

    Attributes:
        folder: folder for the files of all ranks; created if missing.
        step: step after which they are saved.
        rank: this rank.
    """

    folder: Path
    step: int
    rank: int


class CheckpointStore:
    """Writes and reads this rank's files.

    Args:
        weights: the weights that the run started from; None if a checkpoint has all of them.
        shapes: shapes of the model's parameters.
        factory: of the optimizer.
        tuning: which parameters are trained.

    Attributes:
        saved_shapes: shapes of those parameters that checkpoints hold.
        saved_optimizer: what the newest checkpoint says of the optimizer.
    """

    def __init__(
        self,
        weights: TensorSource | None,
        shapes: Shapes,
        factory: OptimizerFactory | None = None,
        tuning: TuningMethod | None = None,
    ) -> None:
        self.weights, self.shapes = weights, shapes
        self.saved_shapes = (tuning or FullTuning()).trained_shapes(shapes)
        self.factory = factory or AdamW()
        self.saved_optimizer: SavedOptimizer | None = None
        self.background = Background()
        self.written_step = 0  # the newest whose files of this rank are on disk
        self.write_seconds = 0.0
        self.load_seconds = 0.0  # that it took to put in place what the run starts from
        self._buffer: HostBuffer | None = None

    def save(
        self,
        target: SaveTarget,
        state: Mapping[str, Any],
        parts: Sequence[Part],
        optimizer: Optimizer,
        *,
        in_background: bool,
    ) -> None:
        """Starts writing what this rank holds.

        Args:
            target: where to.
            state: what else Lightning keeps; rank 0 writes it.
            parts: parameter parts of this rank that are saved.
            optimizer: optimizer whose state is saved.
            in_background: training continues meanwhile, so everything is first copied to host memory. Otherwise it
                is written from where it is, and the caller waits.
        """
        self.background.wait()  # it writes from the buffer
        snapshot = Snapshot(parts, optimizer, self.factory.state)
        self.saved_optimizer = SavedOptimizer(self.factory.target(), self.factory.describe(), snapshot.state_dtypes)
        if in_background:
            buffer, self._buffer = self._buffer, None
            self._buffer = snapshot.copy(buffer)
        text = _state_text(state, optimizer)  # on all ranks, so that what it refuses is refused by all
        self.background.start(partial(self._write, target, snapshot, text if target.rank == 0 else None))

    def reserve(self, parts: Sequence[Part]) -> None:
        """Takes the host memory for copies now, since a GPU's kind of it takes seconds, which a step would wait."""
        saved = [part for part in parts if part.name in self.saved_shapes]
        self._buffer = HostBuffer(
            sum(map(self._saved_bytes, saved)), pinned=any(one.parameter.is_cuda for one in saved)
        )

    def _saved_bytes(self, part: Part) -> int:
        weight = part.parameter.dtype
        return part.num_values * (weight.itemsize + self.factory.state_bytes(dtype_name(weight)))

    def load(self, checkpoint: Path, parts: Sequence[Part], optimizer: Optimizer) -> dict[str, Any]:
        """Restores weights and the optimizer's state.

        Args:
            checkpoint: checkpoint folder; that of step 0 stands for the initial weights, which no checkpoint contains.
            parts: parameter parts of this rank.
            optimizer: has made no update yet.

        Returns:
            What else Lightning restores.

        Raises:
            InputError: the checkpoint of another model or optimizer, or one that cannot be read.
        """
        started = time.perf_counter()
        state = self._load(checkpoint, parts, optimizer)
        self.load_seconds = time.perf_counter() - started
        return state

    def _load(self, checkpoint: Path, parts: Sequence[Part], optimizer: Optimizer) -> dict[str, Any]:
        if step_of(checkpoint.name) == 0:
            assert self.weights is not None
            fill(parts, self.weights)
            return dict(_NOTHING_TO_RESTORE)
        manifest = read_manifest(checkpoint)
        fix = "it belongs to another model: move it away to resume from the previous one"
        check_shapes(manifest.parameters, self.saved_shapes, checkpoint, fix)
        check_saved_state(checkpoint, manifest.optimizer, self.factory)
        saved = [part for part in parts if part.name in self.saved_shapes]
        fill(saved, CheckpointTensors(checkpoint, manifest, WEIGHT))
        if len(saved) < len(parts):
            assert self.weights is not None
            fill([part for part in parts if part.name not in self.saved_shapes], self.weights)
        state: dict[str, Any] = json.loads((checkpoint / TRAINER).read_text(encoding="utf-8"))
        updates = state.pop("optimizer")["updates"]
        if updates != 0:
            sources = {kind: CheckpointTensors(checkpoint, manifest, kind) for kind in saved_state(manifest.optimizer)}
            self._restore_state(saved, optimizer, sources, updates)
        return state | {"lr_schedulers": []}

    def _restore_state(
        self, parts: Sequence[Part], optimizer: Optimizer, sources: Mapping[str, TensorSource], updates: int | None
    ) -> None:
        first: dict[str, Any] | None = None
        for part in parts:
            first = first or first_state(self.factory, part.parameter.dtype, part.parameter.device)
            own = optimizer.state[part.parameter] = begin_state(part.parameter, first, updates)
            for kind, source in sources.items():
                source.read(part.name, part.start, part.of(own[kind]))

    def free(self) -> None:
        """Gives back the memory of copies."""
        self.background.wait()
        self._buffer = None
        give_back_pinned_memory()

    def refusal(self, folder: Path, rank: int) -> str:
        """Why this rank cannot write to a folder; empty if it can."""
        probe = folder / f".probe-{rank}-{os.getpid()}"
        try:
            folder.mkdir(exist_ok=True)
            probe.write_bytes(b"galpaca")
            probe.unlink(missing_ok=True)
        except OSError as error:
            return f"{error.strerror}: {error.filename}"
        return ""

    def _write(self, target: SaveTarget, snapshot: Snapshot, text: str | None) -> None:
        started = time.perf_counter()
        folder, file = target.folder, rank_file(target.rank)
        folder.mkdir(parents=True, exist_ok=True)
        write_report(folder, file, write_tensor_file(folder / file, snapshot.entries, snapshot.values()))
        if text is not None:
            replace_file(folder / TRAINER, text)
            write_report(folder, TRAINER, file_facts(folder / TRAINER))
        self.write_seconds = time.perf_counter() - started
        self.written_step = target.step


def _state_text(state: Mapping[str, Any], optimizer: Optimizer) -> str:
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    kept = {key: value for key, value in state.items() if key not in ("state_dict", "optimizer_states")}
    kept["optimizer"] = {"updates": updates_made(optimizer), "groups": json.loads(json.dumps(groups, default=repr))}
    try:
        return json.dumps(kept, indent=1) + "\n"
    except TypeError as error:
        raise GalpacaError(
            f"the state of a callback or logger is not JSON: {error}",
            where="callbacks",
            why="a checkpoint contains only tensors of the model and optimizer, and JSON",
            fix="return numbers, text, lists and mappings from its state_dict",
        ) from None
