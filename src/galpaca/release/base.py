"""What a release needs besides the weights: kept with the run, for when the first weights are gone."""

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from galpaca.data.prompt_file import PromptFile
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputError, first_line
from galpaca.files.atomic import sync_folder
from galpaca.model.families.family import Family
from galpaca.model.families.known import read_family
from galpaca.release.chat_template import chat_template
from galpaca.runs.recipe import TOKENIZER

_FIX = "restore the folder, or rerun the training command to write it again unless the run is complete"


@dataclass(frozen=True)
class Base:
    """A model without its weights: its configuration, its tokenizer, and how it is prompted."""

    config: PreTrainedConfig
    family: Family
    tokenizer: Tokenizer
    prompts: PromptFile

    @property
    def end_ids(self) -> tuple[int, ...]:
        """All tokens that end an answer, the one of the training first."""
        return self.prompts.end_ids or self.tokenizer.end_ids

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Writes the files into a folder that is there.

        Args:
            dtype: dtype of the weights to be saved with it, if any.

        Raises:
            OSError: the disk is full.
        """
        released: Any = copy.deepcopy(self.config)
        released.architectures = [self.family.class_name]
        released.dtype = dtype
        released.save_pretrained(folder)
        path = folder / "config.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        if (saved := self.family.saved(content)) != content:
            save_json(path, saved)
        self.save_text(folder)

    def save_text(self, folder: Path) -> None:
        """Writes the tokenizer and how it is prompted alone.

        Raises:
            OSError: the disk is full.
        """
        self.tokenizer.hf.chat_template = chat_template(self.prompts, self.tokenizer)
        _save_tokenizer(self.tokenizer, folder, self.family.num_positions(self.config))
        self.prompts.save(folder)


def save_base(base: Base, folder: Path) -> None:
    """Writes the folder beside its final path first; one that is there is replaced.

    Raises:
        OSError: the disk is full.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    base.save(partial)
    put_in_place(partial, folder)


def load_base(folder: Path, settings: Mapping[str, Any]) -> Base:
    """Reads what ``save_base`` wrote; no network is needed.

    Args:
        settings: of the run's recipe, with the fingerprint of its tokenizer.

    Raises:
        InputError: a file is missing or damaged, or the tokenizer is not the one of the training.
    """
    if not folder.is_dir():
        what = "the model's configuration and tokenizer are missing"
        raise InputError(what, where=folder, why="a run keeps them", fix=_FIX)
    try:
        prompts = PromptFile.read(folder)
        config, family = read_family(str(folder), settings.get("model.family"))
        for name in ("dropout", "attention_dropout", "layerdrop"):
            if not 0 <= getattr(config, name, 0.0) <= 1:
                raise ValueError(f"{name} is {getattr(config, name)}")
    except Exception as error:  # the libraries that read them raise a dozen unrelated kinds
        raise InputError(f"a file is missing or damaged: {first_line(error)}", where=folder, fix=_FIX) from None
    tokenizer = load_tokenizer(str(folder))
    if tokenizer.fingerprint != settings[TOKENIZER]:
        raise InputError("the tokenizer is not the one that the run was trained with", where=folder, fix=_FIX)
    return Base(config, family, tokenizer, prompts)


def put_in_place(partial: Path, folder: Path) -> None:
    """Renames a folder that is complete, once it is on disk; one that is there is replaced."""
    sync_folder(partial)
    replaced = folder.with_name(f".{folder.name}.partial-replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def save_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save_tokenizer(tokenizer: Tokenizer, folder: Path, num_positions: int) -> None:
    """Writes the tokenizer for readers that know nothing of decoders: transformers 4 would give OPT token types, which
    it refuses, and pad prompts on the side where answers begin.
    """
    try:
        tokenizer.hf.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # a full disk is a bare Exception to the library behind it
        raise OSError(str(error)) from error
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("tokenizer_class") == "TokenizersBackend":
        content["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that transformers 4 knows too
    content |= {
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        "model_max_length": num_positions,
    }
    for key in ("is_local", "local_files_only"):  # how it was loaded is none of the reader's business
        content.pop(key, None)
    save_json(path, content)
