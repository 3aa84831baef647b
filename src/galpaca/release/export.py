"""The released folder: weights, configuration, tokenizer, generation settings, card."""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig

from galpaca.errors import InputError
from galpaca.files.build_once import no_empty_folders
from galpaca.model.folder_tensors import INDEX_FILE, SINGLE_FILE
from galpaca.model.tensor_file import TensorEntry, write_tensor_file
from galpaca.model.tensors import TensorSource, chunks, dtype_name
from galpaca.release.base import Base, put_in_place, save_json
from galpaca.release.verify import check_logits, check_tensors

# The Hub's tools cut files at about this size.
SHARD_BYTES = 5 * 10**9

Progress = Callable[[int], None]


@dataclass(frozen=True)
class ExportFormat:
    """How a released folder is written.

    Attributes:
        dtype: dtype of the weights on disk.
        max_new_tokens: default length of an answer; without it ``generate`` stops after 20 tokens.
        shard_bytes: most bytes of weights in a file.
    """

    dtype: torch.dtype
    max_new_tokens: int
    shard_bytes: int = SHARD_BYTES


def export(
    source: TensorSource, base: Base, card: str, out: Path, form: ExportFormat, progress: Progress = lambda values: None
) -> None:
    """Writes a Hugging Face folder, compares it with its source, and puts it in place.

    No more than a piece of a tensor is in memory at a time.

    Args:
        source: all weights of the model, a tied head once.
        base: the model's, as trained.
        card: text of README.md.
        out: the folder; one that is there is replaced.
        form: dtype, sizes and defaults.
        progress: called with the number of values written, and then compared, so far: at the end each counts twice.

    Raises:
        InputError: a weight that the dtype cannot represent; a folder that cannot be written; a full disk.
        GalpacaError: what was written differs from what was trained.
    """
    with whole_folder(out) as partial:
        write_weights(source, partial, form.dtype, form.shard_bytes, progress)
        base.save(partial, form.dtype)
        save_generation(base, partial, form.max_new_tokens)
        (partial / "README.md").write_text(card, encoding="utf-8")
        num_values = sum(math.prod(shape) for shape in source.shapes.values())
        check_tensors(source, base.family, partial, form.dtype, lambda done: progress(num_values + done))
        check_logits(source, base.family, partial, form.dtype)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside its final path to write into; it is renamed if no error comes, else nothing is left.

    Raises:
        InputError: a folder that cannot be written; a full disk.
    """
    partial = out.with_name(f".{out.name}.partial")
    with no_empty_folders(out.absolute().parent):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            put_in_place(partial, out)
        except OSError as error:
            raise _unwritable(out, error) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _unwritable(out: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write the folder: {error.strerror or error}",
        where=out,
        why="nothing was left behind",
        fix="free disk space, make the folder writable, or choose another folder",
    )


def write_weights(
    source: TensorSource, folder: Path, dtype: torch.dtype, shard_bytes: int, progress: Progress = lambda values: None
) -> None:
    """Writes ``model.safetensors``, or shards of it and their index.

    Raises:
        InputError: a weight that ``dtype`` cannot hold.
    """
    shards = _shards([TensorEntry(name, dtype, shape) for name, shape in source.shapes.items()], shard_bytes)
    weight_map: dict[str, str] = {}
    done = 0
    for number, entries in enumerate(shards, start=1):
        name = SINGLE_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensor_file(folder / name, entries, _values(source, entries, progress, done), {"format": "pt"})
        done += sum(math.prod(entry.shape) for entry in entries)
        weight_map |= {entry.name: name for entry in entries}
    if len(shards) > 1:
        total = sum(entry.num_bytes for entries in shards for entry in entries)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        save_json(folder / INDEX_FILE, index)


def _shards(entries: list[TensorEntry], shard_bytes: int) -> list[list[TensorEntry]]:
    shards: list[list[TensorEntry]] = [[]]
    room = shard_bytes
    for entry in entries:
        if shards[-1] and entry.num_bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(entry)
        room -= entry.num_bytes
    return shards


def _values(source: TensorSource, entries: list[TensorEntry], progress: Progress, done: int) -> Iterator[Tensor]:
    for entry in entries:
        for start, stop in chunks(math.prod(entry.shape)):
            piece = torch.empty(stop - start, dtype=entry.dtype)
            source.read(entry.name, start, piece)
            if not piece.isfinite().all():
                dtype = dtype_name(entry.dtype)
                raise InputError(
                    f"{entry.name} has a value that {dtype} cannot represent, or one that is not finite",
                    where="dtype",
                    why="it would become infinite, and the model's answers nonsense",
                    fix="bfloat16 or float32; if those are refused too, an earlier checkpoint",
                )
            yield piece
            done += len(piece)
            progress(done)


def save_generation(base: Base, folder: Path, max_new_tokens: int) -> None:
    """Writes ``generation_config.json``: where answers end, and how long they may be."""
    tokenizer, ends = base.tokenizer, list(base.end_ids)
    GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.hf.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=tokenizer.pad_id,
    ).save_pretrained(folder)
