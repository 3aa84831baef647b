"""Checkpoint files: manifest, atomic commit, verification and retention.

A checkpoint is a folder ``step-NNNNNNNN``. It is written under another name, and exists from the moment of its rename
on, when all its files and their manifest are on disk::

    checkpoints/
      latest                       the newest one's name
      step-00000040/
        manifest.json              sizes and SHA-256 of the files, and what the checkpoint belongs to
        trainer.json               the loop's place, the loss scaler, the optimizer's settings
        rank-00000.safetensors     what rank 0 held of the trained weights and of the optimizer's state
        rank-00001.safetensors
"""

import errno
import json
import math
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from galpaca.errors import InputError
from galpaca.files.atomic import replace_file, sync_entry
from galpaca.files.checksums import FileFacts, damages, sealed, unsealed
from galpaca.runs.folder import RunFolder
from galpaca.runs.metrics import validation_losses
from galpaca.runs.recipe import Recipe
from galpaca.runs.typed import decode, encode

MANIFEST, TRAINER, LATEST = "manifest.json", "trainer.json", "latest"
FORMAT = 1
_REPORT = ".report"


@dataclass(frozen=True)
class SavedOptimizer:
    """What a checkpoint says of its optimizer.

    Attributes:
        target: ``optim._target_``.
        description: a line for the model card.
        state: dtype of each kind of state in the files by its name; empty before the first update.
    """

    target: str
    description: str
    state: Mapping[str, str]


@dataclass(frozen=True)
class SaveSeconds:
    """How long training waited for a checkpoint (``stall``), and how long writing it took (``write``)."""

    stall: float = 0.0
    write: float = 0.0


@dataclass(frozen=True)
class Manifest:
    """The manifest of a checkpoint.

    Attributes:
        step: optimizer step after which it was saved.
        num_ranks: number of ranks that wrote it.
        parameters: shape of every trained parameter by name; the files hold these.
        recipe: the run's, as in ``run.json``: seed, data, tokenizer and all else that decides the weights.
        metrics: size and checksum of ``metrics.jsonl`` up to this step.
        files: all other files in the folder.
        time: when it was saved, UTC.
        seconds: how long it took.
        optimizer: absent in checkpoints from before there was a choice, when it was AdamW.
        format: version of the folder's format.
    """

    step: int
    num_ranks: int
    parameters: Mapping[str, tuple[int, ...]]
    recipe: Recipe
    metrics: FileFacts
    files: Mapping[str, FileFacts]
    time: str
    seconds: SaveSeconds = field(default_factory=SaveSeconds)
    optimizer: SavedOptimizer | None = None
    format: int = FORMAT

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.parameters.values())

    @property
    def num_bytes(self) -> int:
        return sum(facts.bytes or 0 for facts in self.files.values())

    def to_json(self) -> str:
        """JSON with its own checksum, since the manifest vouches for the other files."""
        return sealed(encode(self))

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parses a manifest.

        Raises:
            ValueError: not what ``to_json`` wrote.
        """
        content = unsealed(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, but this version reads {FORMAT}")
        return decode(cls, content)


def partial_of(checkpoint: Path) -> Path:
    """Temporary folder of a checkpoint while it is written or removed."""
    return checkpoint.with_name(f".{checkpoint.name}.partial")


def write_report(partial: Path, file: str, facts: FileFacts) -> None:
    """Records, in the checkpoint folder, that a rank's file is on disk."""
    replace_file(partial / f"{file}{_REPORT}", json.dumps(asdict(facts)))


def commit(checkpoint: Path, manifest: Manifest, seconds: SaveSeconds) -> Manifest:
    """Commits a checkpoint. All its files must be on disk, each with its rank's report.

    Args:
        manifest: the manifest without ``files``, which come from the reports.
        seconds: how long it took.

    Returns:
        The manifest as it is on disk.

    Raises:
        OSError: the disk is full, or a rank's file is not there; the checkpoint does not exist then.
    """
    partial = partial_of(checkpoint)
    names = expected_files(manifest.num_ranks)
    files = {name: FileFacts(**json.loads((partial / f"{name}{_REPORT}").read_text())) for name in names}
    for name, damage in damages(partial, files, contents=False).items():
        raise OSError(errno.EIO, f"{name} {damage}")
    complete = replace(manifest, files=files, seconds=seconds)
    replace_file(partial / MANIFEST, complete.to_json())
    for path in partial.iterdir():
        if path.name not in (MANIFEST, *files):
            path.unlink()
    sync_entry(partial)
    partial.rename(checkpoint)
    sync_entry(checkpoint.parent)
    point_to(checkpoint)
    return complete


def rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def expected_files(num_ranks: int) -> list[str]:
    """All files of a checkpoint except its manifest."""
    return [*map(rank_file, range(num_ranks)), TRAINER]


def point_to(checkpoint: Path) -> None:
    """Makes ``latest`` name a checkpoint."""
    replace_file(checkpoint.parent / LATEST, checkpoint.name + "\n")
    sync_entry(checkpoint.parent)


def read_manifest(checkpoint: Path) -> Manifest:
    """Reads the manifest of a checkpoint.

    Raises:
        InputError: it is missing or damaged.
    """
    path = checkpoint / MANIFEST
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            "not a checkpoint: it has no manifest",
            where=checkpoint,
            why="it was never committed, or only partly copied",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the manifest is damaged: {error}", where=path) from None


def damage(checkpoint: Path, *, contents: bool = True) -> list[str]:
    """What is wrong with a checkpoint; empty if it is intact.

    Args:
        contents: also read all files, in parallel, and compare their checksums.
    """
    try:
        manifest = read_manifest(checkpoint)
    except InputError as error:
        return [error.what]
    if sorted(manifest.files) != sorted(expected_files(manifest.num_ranks)):
        return [f"the manifest names {len(manifest.files)} files for {manifest.num_ranks} ranks"]
    return [f"{name} {damage}" for name, damage in damages(checkpoint, manifest.files, contents=contents).items()]


def newest_whole(
    folder: RunFolder, before: float = math.inf, look: Callable[[Path], list[str]] = damage
) -> tuple[int, dict[Path, list[str]]]:
    """Step of the newest checkpoint that is intact, 0 if none is; and what is wrong with each of those after it.

    Args:
        before: only those of earlier steps count.
        look: as ``damage``.
    """
    damaged: dict[Path, list[str]] = {}
    for step in [step for step in reversed(folder.saved_steps()) if step < before]:
        found = look(folder.checkpoint(step))
        if not found:
            return step, damaged
        damaged[folder.checkpoint(step)] = found
    return 0, damaged


def set_aside(checkpoint: Path) -> Path:
    """Renames a damaged checkpoint, so that it is no longer used but nothing is lost.

    Returns:
        Its new path.
    """
    renamed = checkpoint.with_name(f"damaged-{checkpoint.name}")
    number = 1
    while renamed.exists():
        number += 1
        renamed = checkpoint.with_name(f"damaged-{number}-{checkpoint.name}")
    checkpoint.rename(renamed)
    return renamed


def best_of(steps: Collection[int], val_losses: Mapping[int, float]) -> int | None:
    """The step with the lowest validation loss, of equals the last; None where none was validated."""
    judged = [step for step in steps if step in val_losses]
    return min(judged, key=lambda step: (val_losses[step], -step), default=None)


def best_saved_step(folder: RunFolder) -> int | None:
    """The same, of the checkpoints that a run has."""
    return best_of(folder.saved_steps(), validation_losses(folder.metrics))


@dataclass(frozen=True)
class Retention:
    """Which checkpoints to keep.

    Attributes:
        keep_last: number of newest checkpoints to keep.
        keep_every: also keep checkpoints whose step is a multiple of this.
        keep_best: also keep the one with the lowest validation loss.
    """

    keep_last: int
    keep_every: int | None = None
    keep_best: bool = False

    def kept(self, steps: Collection[int], val_losses: Mapping[int, float]) -> set[int]:
        """The steps whose checkpoints are kept.

        Args:
            val_losses: validation losses by step.
        """
        kept = set(sorted(steps)[-self.keep_last :])
        if self.keep_every is not None:
            kept |= {step for step in steps if step % self.keep_every == 0}
        if self.keep_best and (best := best_of(steps, val_losses)) is not None:
            kept.add(best)
        return kept


def retire(folder: RunFolder, retention: Retention, val_losses: Mapping[int, float]) -> None:
    """Removes checkpoints that are not kept. A partly removed one no longer has a checkpoint's name."""
    steps = folder.saved_steps()
    for step in sorted(set(steps) - retention.kept(steps, val_losses)):
        old = folder.checkpoint(step)
        doomed = partial_of(old)
        shutil.rmtree(doomed, ignore_errors=True)
        old.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)  # what is left goes at the next start
