"""The weights of a model that a run has trained: a checkpoint, and the frozen weights that it belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from galpaca.errors import InputError
from galpaca.model.checkpoint_tensors import WEIGHT, CheckpointTensors
from galpaca.model.compute_spec import compute_dtype
from galpaca.model.families.family import Family
from galpaca.model.folder_tensors import FolderTensors, weights_fingerprint
from galpaca.model.tensors import TensorSource
from galpaca.model.tuning.method import TuningMethod
from galpaca.model.tuning.recipe import method_of
from galpaca.runs.checkpoints import Manifest, read_manifest
from galpaca.runs.recipe import BASE


@dataclass(frozen=True)
class TrainedWeights:
    """What a checkpoint holds, and what was frozen beside it.

    Attributes:
        manifest: the checkpoint's.
        method: what it was tuned with.
        trained: the checkpoint's weights.
        frozen: those that the run started from; None where the checkpoint has all.
        compute_dtype: dtype of matrix products in training.
    """

    manifest: Manifest
    method: TuningMethod
    trained: TensorSource
    frozen: TensorSource | None
    compute_dtype: torch.dtype

    def released(self, *, original: bool = False) -> TensorSource:
        """The whole model's weights; see ``TuningMethod.released``."""
        return self.method.released(
            self.trained if self.frozen is None else self.frozen, self.trained, self.compute_dtype, original=original
        )


@dataclass(frozen=True)
class FrozenPlace:
    """Where the weights are that a run started from.

    Attributes:
        facts: what ``run.json`` says of them.
        family: the model's.
        tied_head: whether the head shares the embedding.
        given: a folder in the place of the one that it names.
    """

    facts: Mapping[str, Any]
    family: Family
    tied_head: bool
    given: Path | None = None

    @property
    def name(self) -> str:
        """The Hub id, with its revision, or the path as the run was given it."""
        revision = self.facts.get("commit") or self.facts.get("revision")
        return f"{self.facts.get('path')}{f' (revision {revision})' if revision else ''}"

    @property
    def folder(self) -> Path:
        return self.given or Path(str(self.facts.get("folder")))

    def open(self, fingerprint: str | None) -> FolderTensors:
        """Reads all of the files, and opens them.

        Args:
            fingerprint: that of the weights that were trained with.

        Raises:
            InputError: they are not there, or others.
        """
        folder = self.folder
        if not folder.is_dir():
            raise InputError(
                f"the frozen model is missing: {self.name}",
                where=folder,
                why="a checkpoint of adapters does not hold the model that they belong to",
                fix=f"put {self.name} there again, or give galpaca export, generate and the like --base FOLDER",
            )
        found = weights_fingerprint(folder)
        if fingerprint is not None and found != fingerprint:
            raise InputError(
                f"not the model that the adapters were trained with: {self.name}",
                where=folder,
                why=f"its weights are {found[:12]}, not {fingerprint[:12]}",
                fix="put the same files there again, or give galpaca export, generate and the like --base FOLDER",
            )
        return FolderTensors(folder, self.family, tied_head=self.tied_head)


def open_trained(checkpoint: Path, frozen: FrozenPlace) -> TrainedWeights:
    """Opens the weights of an intact checkpoint.

    Raises:
        InputError: a file is missing or damaged; the frozen weights are not there, or others.
    """
    manifest = read_manifest(checkpoint)
    settings = manifest.recipe.settings
    method = method_of(settings, frozen.family)
    return TrainedWeights(
        manifest,
        method,
        CheckpointTensors(checkpoint, manifest, WEIGHT),
        frozen.open(settings.get(BASE)) if method.keeps_base else None,
        getattr(torch, compute_dtype(str(settings.get("precision.name")))),
    )
