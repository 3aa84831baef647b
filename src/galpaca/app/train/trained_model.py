"""All that a released folder is made of, from a run folder."""

import copy
from dataclasses import dataclass
from pathlib import Path

from galpaca.errors import InputError, first_line
from galpaca.model.build import build_model, parameter_shapes
from galpaca.model.tensors import Shapes, check_shapes
from galpaca.model.trained import FrozenPlace, TrainedWeights, open_trained
from galpaca.release.base import Base, load_base
from galpaca.runs.checkpoints import read_manifest
from galpaca.runs.folder import RunFolder
from galpaca.runs.record import RunRecord


@dataclass(frozen=True)
class TrainedModel:
    """All that a release is made of, open.

    Attributes:
        weights: of one checkpoint.
        base: configuration, tokenizer and prompts.
    """

    folder: RunFolder
    record: RunRecord
    weights: TrainedWeights
    base: Base


def open_model(folder: RunFolder, record: RunRecord, checkpoint: Path, frozen: Path | None = None) -> TrainedModel:
    """Opens an intact checkpoint with what belongs to it.

    Args:
        frozen: folder of the frozen model, where it is not where it was.

    Raises:
        InputError: files of the run or of the frozen model are missing, damaged, or others.
    """
    settings = read_manifest(checkpoint).recipe.settings
    base = load_base(folder.base, settings)
    place = FrozenPlace(record.content.weights, base.family, base.config.tie_word_embeddings, frozen)
    weights = open_trained(checkpoint, place)
    wanted = _shapes(base, folder)
    fix = "restore the folder: its config.json belongs to another model"
    check_shapes(weights.released().shapes, wanted, folder.base, fix)
    return TrainedModel(folder, record, weights, base)


def _shapes(base: Base, folder: RunFolder) -> Shapes:
    try:
        return parameter_shapes(build_model(copy.deepcopy(base.config), base.family))
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:  # of torch, about numbers in it
        raise InputError(
            f"no model has this configuration: {first_line(error)}",
            where=folder.base / "config.json",
            fix="restore the file; rerunning the command that started the run writes it as well",
        ) from None
