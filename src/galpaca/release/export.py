"""The released folder: weights, configuration, tokenizer, generation settings, card."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import GenerationConfig

from galpaca.data.prompts import Template
from galpaca.data.tokenizer import Tokenizer
from galpaca.errors import InputError
from galpaca.model.folder_tensors import INDEX_FILE, SINGLE_FILE
from galpaca.model.tensor_file import TensorEntry, write_tensor_file
from galpaca.model.tensors import TensorSource, chunks
from galpaca.release.verify import check_logits, check_tensors
from galpaca.runs.folder import sync_folder

if TYPE_CHECKING:
    from transformers import OPTConfig

# What ``galpaca`` needs to ask the model as it was trained; ``transformers`` ignores the file.
PROMPT_FILE = "galpaca.json"

# The Hub's tools cut files at about this size.
SHARD_BYTES = 5 * 10**9

Progress = Callable[[int], None]


def export(
    source: TensorSource,
    config: OPTConfig,
    tokenizer: Tokenizer,
    template: Template,
    card: str,
    out: Path,
    *,
    dtype: torch.dtype,
    max_new_tokens: int,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda values: None,
) -> None:
    """Writes a Hugging Face folder, beside its place first, compares it with its source, and renames it.

    No more than a piece of a tensor is in memory at a time.

    Args:
        source: all weights of ``OPTForCausalLM``, a tied head once.
        config: the model's, as trained.
        card: text of README.md.
        out: the folder; one that is there is replaced.
        dtype: of the weights on disk.
        max_new_tokens: default length of an answer; without it ``generate`` stops after 20 tokens.
        shard_bytes: most bytes of weights in a file.
        progress: told how many values have been written and compared so far.

    Raises:
        InputError: a weight that ``dtype`` cannot hold.
        GalpacaError: what was written is not what was trained.
    """
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write_weights(source, partial, dtype, shard_bytes, progress)
        _save_config(config, partial, dtype)
        _save_generation(tokenizer, partial, max_new_tokens)
        _save_tokenizer(tokenizer, partial)
        prompts = {"template": template.to_dict(), "splits_sequences": tokenizer.splits_sequences}
        _save_text(partial / PROMPT_FILE, json.dumps(prompts, indent=2, ensure_ascii=False) + "\n")
        _save_text(partial / "README.md", card)
        check_tensors(source, partial, dtype, progress)
        check_logits(source, partial, dtype)
        sync_folder(partial)
        replaced = out.with_name(f".{out.name}.partial-replaced")
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


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
        _save_text(folder / INDEX_FILE, json.dumps(index, indent=2) + "\n")


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
                raise InputError(
                    f"{entry.name} holds a number that {entry.dtype} cannot, or none at all",
                    where="dtype",
                    why="it would be infinite, and the model's answers nonsense",
                    fix="bfloat16 or float32; if those are refused too, an earlier checkpoint",
                )
            yield piece
            done += len(piece)
            progress(done)


def _save_config(config: OPTConfig, folder: Path, dtype: torch.dtype) -> None:
    released = copy.deepcopy(config)
    released.architectures = ["OPTForCausalLM"]
    released.dtype = dtype
    released.save_pretrained(folder)


def _save_generation(tokenizer: Tokenizer, folder: Path, max_new_tokens: int) -> None:
    GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.hf.bos_token_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    ).save_pretrained(folder)


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.hf.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("tokenizer_class") == "TokenizersBackend":
        content["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that transformers 4 knows too
    for key in ("is_local", "local_files_only"):  # how it was loaded is none of the reader's business
        content.pop(key, None)
    _save_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _save_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
