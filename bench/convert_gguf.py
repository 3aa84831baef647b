"""A GGUF file of a Llama as a Hugging Face folder, for tests and benchmarks.

    python bench/convert_gguf.py FILE.gguf FOLDER

Weights come out in float32, dequantized: what 4 bits had lost stays lost, and the folder's README says so. The folder
is whole or absent, and what was written is compared with what was read, bit for bit. Needs the package gguf
(``pip install -c constraints.txt -e '.[bench]'``).
"""

from __future__ import annotations

import argparse
import errno
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from galpaca.errors import GalpacaError, InputError, first_line
from galpaca.files.atomic import sync_entry, sync_folder
from galpaca.files.build_once import fresh_partial

# Of what is written: greater as soon as the same file would become another folder.
VERSION = 2

_MAGIC = b"GGUF"
ARCHITECTURE = "llama"
_BYTES_PER_PARAMETER = 4
_OTHER_FILES_BYTES = 64 * 2**20  # a tokenizer of 50,000 tokens takes 4 MB
# The metadata's name of each special token's id, and the tokenizer's.
_SPECIAL_TOKENS = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id", "unknown": "unk_token_id"}
_CHECKED_TOKENS = 64
# Value of ``tokenizer.ggml.pre``: does each digit stand alone before GPT-2's rule splits the text? transformers does
# not read the value and takes GPT-2's rule for all; llama.cpp's ``llama-vocab.cpp`` has the meaning of every value.
_DIGITS_STAND_ALONE = {"gpt-2": False, "smollm": True}


@dataclass(frozen=True)
class GgufFacts:
    """What a file's metadata says of the model.

    Attributes:
        name, license: as the file states them.
        parameters: a tied head counts once, since the file has no tensor for it.
        kinds: types of its tensors with their counts, such as ``210 of Q4_1``.
        chat_template: None where the file has none.
        special_ids: id of each special token, by the tokenizer's name for it.
        digits_stand_alone: whether the tokenizer splits numbers into digits before anything else.
    """

    name: str
    license: str
    parameters: int
    kinds: str
    chat_template: str | None
    special_ids: Mapping[str, int]
    digits_stand_alone: bool


def main() -> int:
    parser = argparse.ArgumentParser(prog="python bench/convert_gguf.py", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.gguf", help="of a Llama")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="to write; must not exist")
    given = parser.parse_args()
    try:
        facts = convert(given.file, given.folder)
    except GalpacaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{given.folder}: {facts.name}, {facts.parameters:,} parameters in float32, from {facts.kinds}")
    return 0


def convert(file: Path, folder: Path) -> GgufFacts:
    """Writes the folder, and reads it again.

    Raises:
        InputError: no such file, not a GGUF of a Llama, the folder exists, the disk is full, or gguf is not installed.
        GalpacaError: what was written is not what was read.
    """
    facts = _checked(file, folder)
    try:
        partial = fresh_partial(folder)
    except OSError as error:
        raise _not_written(error, folder) from None
    try:
        _fill(partial, file, facts)
        sync_folder(partial)
        partial.rename(folder)
        sync_entry(folder.parent)
    except OSError as error:
        raise _not_written(error, folder) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return facts


def _checked(file: Path, folder: Path) -> GgufFacts:
    if not file.is_file():
        raise InputError("there is no such file", where=file, fix="a file that ends in .gguf")
    with file.open("rb") as content:
        if content.read(len(_MAGIC)) != _MAGIC:
            raise InputError("this is not a GGUF file", where=file, why="it does not begin with the four letters GGUF")
    if folder.exists():
        raise InputError("the folder exists", where=folder, fix="another FOLDER, or remove it")
    if find_spec("gguf") is None:
        fix = "pip install -c constraints.txt -e '.[bench]'"
        raise InputError("gguf is not installed", where="gguf", why="it reads the file's tensors", fix=fix)
    facts = read_facts(file)
    above = next(one for one in folder.absolute().parents if one.exists())
    needed, free = facts.parameters * _BYTES_PER_PARAMETER + _OTHER_FILES_BYTES, shutil.disk_usage(above).free
    if free < needed:
        what = f"the disk is full: {needed / 2**20:,.0f} MiB are needed and {free / 2**20:,.0f} MiB are free"
        raise InputError(what, where=above, fix="free disk space, or choose another folder")
    return facts


def read_facts(file: Path) -> GgufFacts:
    """Reads the metadata.

    Raises:
        InputError: it cannot be read, is not that of a Llama, or its texts are split by an unknown rule.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except Exception as error:  # of whatever kind a cut or foreign file provokes
        raise InputError(f"the file is damaged: {first_line(error)}", where=file, fix="fetch it again") from None

    def of(key: str) -> Any:
        field = reader.get_field(key)
        return None if field is None else field.contents()

    if of("general.architecture") != ARCHITECTURE:
        what = f"the model is no Llama: its architecture is {of('general.architecture')!r}"
        raise InputError(what, where=file, fix="a GGUF file whose general.architecture is llama")
    rule = of("tokenizer.ggml.pre")
    if rule not in _DIGITS_STAND_ALONE:
        what = "the file has no tokenizer.ggml.pre" if rule is None else f"tokenizer.ggml.pre is {rule!r}"
        known = f"known are {', '.join(_DIGITS_STAND_ALONE)}; another rule would give other tokens"
        raise InputError(what, where=file, why=known, fix="another model, or add the rule to bench/convert_gguf.py")
    kinds = [tensor.tensor_type.name for tensor in reader.tensors]
    ids = {name: of(f"tokenizer.ggml.{key}_token_id") for key, name in _SPECIAL_TOKENS.items()}
    return GgufFacts(
        name=str(of("general.name") or file.stem),
        license=str(of("general.license") or "unknown"),
        parameters=sum(int(tensor.n_elements) for tensor in reader.tensors),
        kinds=", ".join(f"{kinds.count(kind)} of {kind}" for kind in sorted(set(kinds))),
        chat_template=of("tokenizer.chat_template"),
        special_ids={name: int(number) for name, number in ids.items() if number is not None},
        digits_stand_alone=_DIGITS_STAND_ALONE[rule],
    )


def _not_written(error: OSError, folder: Path) -> InputError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "the disk is full" if full else f"the folder cannot be written: {error.strerror or first_line(error)}"
    return InputError(what, where=folder, fix="free disk space, or choose another folder")


def _fill(partial: Path, file: Path, facts: GgufFacts) -> None:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except Exception as error:  # the library raises a dozen unrelated kinds
        what = f"transformers cannot read it: {type(error).__name__}: {first_line(error)}"
        raise InputError(what, where=file, fix="another quantization of the same model") from None
    _check_tokenizer(tokenizer, facts, file)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer(facts)
    _forget_quantization(model)
    try:
        model.save_pretrained(partial)
    except SafetensorError as error:  # says of a full disk only that in words
        raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, first_line(error)) from None
    tokenizer.save_pretrained(partial)
    (partial / "README.md").write_text(_readme(file, facts), encoding="utf-8")
    _check_written(partial, model, tokenizer)


def pre_tokenizer(facts: GgufFacts) -> Any:
    """What splits a text before bytes are merged."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    words = ByteLevel(add_prefix_space=False, use_regex=True)
    return Sequence([Digits(individual_digits=True), words]) if facts.digits_stand_alone else words


def _forget_quantization(model: Any) -> None:
    """The weights are dequantized, and still marked as quantized; marked models are not saved."""
    model.hf_quantizer, model.is_quantized = None, False
    for holder, name in ((model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(holder, name):
            delattr(holder, name)


def _check_tokenizer(tokenizer: Any, facts: GgufFacts, file: Path) -> None:
    for name, number in facts.special_ids.items():
        if getattr(tokenizer, name) != number:
            what = f"{name} is {getattr(tokenizer, name)} in the tokenizer and {number} in the file"
            raise GalpacaError(what, where=file, why="transformers read it differently")
    if (tokenizer.chat_template or None) != facts.chat_template:
        raise GalpacaError("the tokenizer's chat template is not the file's", where=file)


def _check_written(partial: Path, model: Any, tokenizer: Any) -> None:
    """Raises:
    GalpacaError: weights, logits, the tokenizer or its chat template are not the same when they are read again.
    """
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    again = AutoModelForCausalLM.from_pretrained(partial, dtype=torch.float32).eval()
    of_again = again.state_dict()
    unequal = [name for name, value in model.state_dict().items() if not torch.equal(value, of_again[name])]
    ids = torch.arange(_CHECKED_TOKENS).remainder(model.config.vocab_size)[None]
    with torch.inference_mode():
        if unequal or not torch.equal(model(ids).logits, again(ids).logits):
            raise GalpacaError(f"weights or logits are not the same when read again: {unequal[:3]}", where=partial)
    with safe_open(partial / "model.safetensors", "pt") as stored:
        if model.config.tie_word_embeddings and "lm_head.weight" in stored.keys():  # noqa: SIM118 - not a dict
            raise GalpacaError("the tied head was written a second time", where=partial)
    reread = AutoTokenizer.from_pretrained(partial)
    if _of_tokenizer(reread) != _of_tokenizer(tokenizer):
        raise GalpacaError("the tokenizer is not the same when read again", where=partial)


def _of_tokenizer(tokenizer: Any) -> tuple[Any, ...]:
    return tokenizer.special_tokens_map, tokenizer.chat_template, tokenizer.backend_tokenizer.to_str()


def _readme(file: Path, facts: GgufFacts) -> str:
    return f"""---
license: {facts.license}
---

# {facts.name}, dequantized

For tests and benchmarks. These weights were read from `{file.name}` and are stored in float32. In the file they are
quantized ({facts.kinds}), and what that has lost is lost here, too: this is not the original model, and answers worse
than it. License of the model: {facts.license}.

Written by `bench/convert_gguf.py` of galpaca.
"""


if __name__ == "__main__":
    sys.exit(main())
