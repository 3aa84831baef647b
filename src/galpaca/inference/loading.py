"""Loads a model with its tokenizer and prompt template from a released folder, a run folder or the Hub."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, get_args

import torch

from galpaca.data.encoding import Encoder, RecordEncoder
from galpaca.data.prompt_file import PROMPT_FILE, PromptFile
from galpaca.data.prompting import Prompting
from galpaca.data.prompts import find_template
from galpaca.data.records import Record
from galpaca.data.scripts import Scripts
from galpaca.data.tokenizer import load_tokenizer
from galpaca.errors import GalpacaError, InputError, Problems, first_line
from galpaca.inference.hub import FOLDER_FIX, commit_of, downloaded, prompt_folder
from galpaca.inference.places import Place, find_model
from galpaca.inference.settings import Dtype, WeightOptions

# Of a weights file, what is read for its fingerprint: small pieces at like distances, so that whatever has changed of
# its tensors, some of it is read.
_PIECES, _PIECE_BYTES = 256, 2**14


class Reader(Encoder, Protocol):
    """What inference needs of a tokenizer; ``galpaca.data.tokenizer.Tokenizer`` implements it."""

    pad_id: int
    boundary_id: int

    def whole_text(self, ids: Sequence[int]) -> str: ...


class PromptFormat(Prompting, Protocol):
    """What inference needs of a prompt template; ``galpaca.data.prompts.Template`` implements it."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Loaded:
    """A loaded model, ready to generate.

    Attributes:
        name: its name as given.
        model: the ``transformers`` model, in eval mode.
        positions: context length; None if the model has no limit.
        max_new_tokens: default length of an answer.
        fingerprint: SHA-256 over configuration, tokenizer and template, sizes of the weights and samples of them.
        device_dtype: device and dtype of its weights, in words.
        scripts: how sub- and superscripts are written.
        keeps_turns: earlier turns go into the prompt, since the model was trained on conversations.
        further_ends: ids that end an answer according to the model's or its tokenizer's settings.
    """

    name: str
    model: Any
    tokenizer: Reader
    template: PromptFormat
    positions: int | None
    max_new_tokens: int
    fingerprint: str
    device_dtype: str
    further_ends: tuple[int, ...] = ()
    scripts: Scripts = "keep"
    keeps_turns: bool = False

    @property
    def encoder(self) -> RecordEncoder:
        return RecordEncoder(self.tokenizer, self.template, self.scripts)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """All tokens that end an answer, the one of the training first."""
        return tuple(dict.fromkeys([self.encoder.end_id, self.tokenizer.eos_id, *self.further_ends]))

    def prompt_ids(self, questions: Sequence[Record]) -> list[list[int]]:
        """Ids of the prompts of questions, as they stand at the head of an example in training: of a model that was
        trained on single questions, of the last turn alone.
        """
        return self.encoder.prompt_ids(questions if self.keeps_turns else [one.alone() for one in questions])

    def prompt_text(self, ids: Sequence[int]) -> str:
        """A prompt as the model sees it, for a reader: without what the tokenizer alone puts in front of a text."""
        return (self.tokenizer.decode if self.template.end_text is None else self.tokenizer.whole_text)(ids)

    def note_on_turns(self, questions: Sequence[Record]) -> str:
        """What is to be said of earlier turns that the model does not see; empty where there are none."""
        count = 0 if self.keeps_turns else sum(one != one.alone() for one in questions)
        if not count:
            return ""
        return f"{self.name} was trained on single questions: of {count:,} conversations it sees the last alone"


DEFAULT_MAX_NEW_TOKENS = 256


def load(
    name: str,
    *,
    dtype: Dtype | None = None,
    template: str | None = None,
    template_date: str | None = None,
    weights: WeightOptions | None = None,
) -> Loaded:
    """Loads a model onto the GPU, or the GPUs, or the CPU.

    Args:
        name: a released folder, an adapter's, the folder of a run, a saved step of it, or a name on the Hub.
        dtype: dtype of the weights; default: the folder's on a GPU, float32 on a CPU.
        weights: how they are loaded.
        template: a shipped prompt template or a .yaml file; default: the folder's.
        template_date: what a tokenizer's own template takes for today; default: the date of the training, where the
            folder has one. Templates of texts know none.

    Raises:
        InputError: the model, its tokenizer or its template cannot be loaded.
        GalpacaError: out of memory.
    """
    place = find_model(name)
    path = place.path
    with Problems() as problems:
        problems.check_choice("--dtype", dtype, get_args(Dtype))
    own = _own_prompts(path) if template is None or prompt_folder(path) is not None else None
    tokenizer = load_tokenizer(path)
    if own is not None and own.splits_sequences != tokenizer.splits_sequences:
        raise InputError(
            "the folder's tokenizer splits sequences differently than in training",
            where=name,
            why="the model would see molecules and proteins in tokens that it was not trained on",
            fix="restore tokenizer.json and galpaca.json, which belong together",
        )
    chosen = (own.template if own is not None and template is None else find_template(str(template))).bound(tokenizer)
    if template_date is not None:
        chosen = chosen.dated(template_date).bound(tokenizer)
    fingerprints = tokenizer.fingerprint, chosen.fingerprint
    loaded = assembled(place, dtype, tokenizer, chosen, fingerprints, weights or WeightOptions())
    listed = dict.fromkeys([*loaded.further_ends, *tokenizer.end_ids, *(own.end_ids if own is not None else ())])
    loaded = replace(loaded, further_ends=tuple(listed))
    return loaded if own is None else replace(loaded, scripts=own.scripts, keeps_turns=own.keeps_turns)


def assembled(
    place: Place,
    dtype: Dtype | None,
    reader: Reader,
    prompt_format: PromptFormat,
    fingerprints: tuple[str, str],
    weights: WeightOptions,
) -> Loaded:
    """A model's weights, with its tokenizer and prompt template.

    Args:
        fingerprints: fingerprints of ``reader`` and ``prompt_format``.

    Raises:
        InputError: the weights cannot be loaded.
        GalpacaError: out of memory.
    """
    model, files = load_weights(place, dtype, weights)
    generation = model.generation_config
    _check_numbers(generation, f"{place.path}/generation_config.json")
    ends = generation.eos_token_id
    return Loaded(
        name=place.name,
        model=model,
        tokenizer=reader,
        template=prompt_format,
        positions=positions_of(model),
        max_new_tokens=generation.max_new_tokens or DEFAULT_MAX_NEW_TOKENS,
        fingerprint=fingerprint_of(place.path, files, model, *fingerprints, *(["4bit"] if weights.four_bits else [])),
        device_dtype=device_dtype_of(model) + (", linear layers in 4 bits" if weights.four_bits else ""),
        further_ends=tuple(ends) if isinstance(ends, list) else (() if ends is None else (ends,)),
    )


def _check_numbers(generation: Any, file: str) -> None:
    """What ``generate`` takes from a file without looking at it."""
    given = {
        key: value for key, value in vars(generation).items() if key.endswith("_token_id") or key == "max_new_tokens"
    }
    with Problems() as problems:
        for key, value in given.items():
            values = value if isinstance(value, list) else [] if value is None else [value]
            if not all(isinstance(one, int) and 0 <= one < 2**31 for one in values):
                problems.add(f"{key} is no number: {value!r}", where=file, fix="mend or restore the file")


def _own_prompts(path: str) -> PromptFile:
    folder = prompt_folder(path)
    if folder is None:
        raise InputError(
            f"the folder has no prompt template: {PROMPT_FILE} is missing",
            where=path,
            why="a model answers badly when it is prompted differently than in training",
            fix="--template alpaca, or science, or a .yaml file",
        )
    return PromptFile.read(folder)


def load_weights(place: Place, dtype: Dtype | None, weights: WeightOptions) -> tuple[Any, Sequence[Path]]:
    """A model in eval mode, and the folders with the files of its weights."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        opened = place.opened(weights.base)
        if weights.four_bits and opened is None:
            from galpaca.inference.opened_weights import of_folder

            opened = of_folder(downloaded(place.path))
        if opened is None:
            return _by_transformers(place.path, dtype), place.files
        on_gpu = torch.cuda.is_available()
        own = (opened.dtype or torch.float16) if on_gpu else torch.float32
        chosen = getattr(torch, dtype) if dtype else own
        model = opened.load(chosen, torch.device("cuda:0" if on_gpu else "cpu"), four_bits=weights.four_bits)
        return model, (*place.files, *opened.files)
    except torch.OutOfMemoryError as error:
        raise GalpacaError(
            "GPU out of memory: the model does not fit",
            where=place.name,
            why=str(error),
            fix="--dtype bfloat16, --load-in-4bit, or more GPUs",
        ) from None
    except InputError:
        raise
    except Exception as error:  # the library raises a dozen unrelated kinds
        what = f"cannot load the model: {type(error).__name__}: {first_line(error)}"
        raise InputError(what, where=place.name, fix=FOLDER_FIX) from None


def _by_transformers(path: str, dtype: Dtype | None) -> Any:
    from transformers import AutoModelForCausalLM

    num_gpus = torch.cuda.device_count()
    wanted: Any = getattr(torch, dtype) if dtype else "auto" if num_gpus else torch.float32
    where = {"device_map": "auto" if num_gpus > 1 else {"": 0}} if num_gpus else {}
    return AutoModelForCausalLM.from_pretrained(path, dtype=wanted, **where).eval()


def num_parameters(model: Any) -> int:
    """Of a model, tied ones once; two are in a byte of what is in 4 bits, and their scales are none."""
    each = ((name, one.numel()) for name, one in model.named_parameters() if not name.endswith(".scales"))
    return sum(2 * count if name.endswith(".codes") else count for name, count in each)


def positions_of(model: Any) -> int | None:
    """Most tokens that the model can read; None where it has no limit."""
    text = model.config.get_text_config()
    found = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return None if found is None else int(found)


def device_dtype_of(model: Any) -> str:
    """All devices that hold weights, since answers wait for those in the host's memory or on disk; and the dtype."""
    used = sorted({str(device) for device in getattr(model, "hf_device_map", {"": model.device}).values()})
    names = [f"GPU {name}" if name.isdigit() else name for name in used]
    return f"{' and '.join(names)}, {str(model.dtype).removeprefix('torch.')}"


def fingerprint_of(path: str, folders: Sequence[Path], model: Any, *others: str) -> str:
    """SHA-256 over what identifies a model, its weights by samples of their files.

    Args:
        path: ``Place.path``.
        folders: those with the files.
        others: what else identifies it.
    """
    digest = hashlib.sha256("\0".join(others).encode())
    digest.update(f"{commit_of(path)} {model.dtype}".encode())
    kinds = ("*.safetensors", "*.bin", "config.json", "adapter_config.json")
    files = [file for folder in folders if folder.is_dir() for kind in kinds for file in folder.glob(kind)]
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as content:
            last = max(0, size - _PIECE_BYTES)
            for start in sorted({last * piece // (_PIECES - 1) for piece in range(_PIECES)}):
                content.seek(start, os.SEEK_SET)
                digest.update(content.read(_PIECE_BYTES))
    return digest.hexdigest()
