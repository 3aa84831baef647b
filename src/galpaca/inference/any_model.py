"""Models not trained with galpaca, prompted with their own chat template or as plain text."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from galpaca.data.prompts import load_template
from galpaca.data.records import Record, Turn
from galpaca.data.tokenizer import Tokenizer
from galpaca.errors import InputError, first_line
from galpaca.inference.hub import prompt_folder
from galpaca.inference.loading import Loaded, PromptFormat, Reader, assembled, load
from galpaca.inference.places import find_model
from galpaca.inference.settings import Dtype, WeightOptions

# Stands in no template.
_ANSWER = "galpaca-0f3a"
_TOKENIZER_FIX = "a folder with the model's own tokenizer files"


def only_turn(record: Record, name: str) -> Turn:
    """The one turn of a record.

    Raises:
        InputError: it has more, or a system.
    """
    if len(record.turns) > 1 or record.system:
        what = "earlier turns and a system message cannot be kept"
        raise InputError(what, where=name, fix="use records with one turn, or --template alpaca for all models")
    return record.turns[0]


class PlainText:
    """The instruction, an empty line, the input if there is one, and the end of the line: for models that bring no
    template.

    It ends with one newline, since two are one token before nothing and two before a text in GPT-2's tokenizer: the
    prompt alone would not be the head of the record.
    """

    name = "plain text"
    fingerprint = "plain text, one newline"

    def prompts(self, record: Record) -> list[str]:
        turn = only_turn(record, self.name)
        return ["\n\n".join(filter(None, (turn.instruction, turn.input))) + "\n"]


class ChatTemplate:
    """The chat template of a tokenizer, with instruction and input as the one message of the user."""

    name = "its tokenizer's chat template"

    def __init__(self, hf: Any) -> None:
        self._hf = hf
        self.fingerprint = hashlib.sha256(str(hf.chat_template).encode()).hexdigest()

    def prompts(self, record: Record) -> list[str]:
        turn = only_turn(record, self.name)
        message = {"role": "user", "content": "\n\n".join(filter(None, (turn.instruction, turn.input)))}
        return [str(self._hf.apply_chat_template([message], tokenize=False, add_generation_prompt=True))]

    def end_id(self) -> int | None:
        """The token that ends an answer, which need not be the one that ends a text; None where no token does."""
        talk = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _ANSWER}]
        try:
            behind = str(self._hf.apply_chat_template(talk, tokenize=False)).rpartition(_ANSWER)[2]
        except Exception:  # of any kind, where a template knows no turn of the assistant
            return None
        ids = self._hf(behind, add_special_tokens=False).input_ids
        return ids[0] if ids and ids[0] in self._hf.added_tokens_decoder else None


class OtherReader:
    """Any tokenizer of ``transformers``.

    Args:
        with_first: whether the token that the tokenizer puts before a text belongs there.
        end_id: ends an answer, where another than the end of a text does.

    Attributes:
        hf: the tokenizer.
        eos_id: id of the token that ends an answer.
        pad_id: id of the padding token; ``eos_id`` if the tokenizer has none.
        boundary_id: id of the token that a document begins after.

    Raises:
        InputError: it has no ``eos_token``.
    """

    def __init__(self, hf: Any, source: str, *, with_first: bool, end_id: int | None = None) -> None:
        self.hf = hf
        if hf.eos_token_id is None:
            fix = "set eos_token in its tokenizer_config.json"
            raise InputError("the tokenizer has no eos_token", where=source, fix=fix)
        self.eos_id: int = hf.eos_token_id if end_id is None else end_id
        self.pad_id: int = hf.eos_token_id if hf.pad_token_id is None else hf.pad_token_id
        self.boundary_id: int = hf.eos_token_id if hf.bos_token_id is None else hf.bos_token_id
        # What the tokenizer puts behind a text would stand between prompt and answer.
        put_around = list(hf("").input_ids) if with_first else []
        self._first = [i for i in put_around[:1] if i == hf.bos_token_id]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._first + list(ids) for ids in self.hf(list(texts), add_special_tokens=False).input_ids]

    def mark(self, field: str, before: Sequence[str] = ()) -> str:
        return field

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.hf.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def load_any(
    name: str, *, dtype: Dtype | None = None, template: str | None = None, weights: WeightOptions | None = None
) -> Loaded:
    """Loads a released model with its template, or another causal model of ``transformers``.

    Args:
        name: as ``load``, or another model's folder, or its name on the Hub.
        dtype, weights: as ``load``.
        template: template for models without one, instead of plain text.

    Raises:
        InputError: the model or its tokenizer cannot be loaded, or it has no ``eos_token``.
        GalpacaError: out of memory.
    """
    place = find_model(name)
    if prompt_folder(place.path) is not None:
        return load(name, dtype=dtype, weights=weights)
    reader, prompt_format = _reading(place.path, template)
    fingerprints = vocabulary_fingerprint(reader), getattr(prompt_format, "fingerprint", "")
    # Whether it takes earlier turns is its format's matter, which refuses what it cannot write.
    return replace(
        assembled(place, dtype, reader, prompt_format, fingerprints, weights or WeightOptions()), keeps_turns=True
    )


def _reading(path: str, template: str | None) -> tuple[Reader, PromptFormat]:
    from transformers import AutoTokenizer

    try:
        hf = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # the library raises a dozen unrelated kinds
        raise InputError(f"cannot load the tokenizer: {first_line(error)}", where=path, fix=_TOKENIZER_FIX) from None
    if getattr(hf, "chat_template", None):
        chat = ChatTemplate(hf)
        try:
            chat.prompts(Record.of("instruction", "input"))
        except Exception as error:  # whatever the template raises
            what = f"cannot use the tokenizer's chat template: {error}"
            raise InputError(what, where=path, fix="fix or remove it") from None
        return OtherReader(hf, path, with_first=False, end_id=chat.end_id()), chat
    plain = load_template(template) if template else PlainText()
    vocabulary = hf.get_vocab()
    if getattr(hf, "backend_tokenizer", None) is not None and {"</s>", "<pad>"} <= vocabulary.keys():
        return Tokenizer(hf, path), plain  # GALACTICA's and OPT's, as in training
    return OtherReader(hf, path, with_first=True), plain


def vocabulary_fingerprint(reader: Any) -> str:
    """SHA-256 of all tokens and their ids; where two are equal, losses a token can be compared."""
    vocabulary = sorted(reader.hf.get_vocab().items())
    return hashlib.sha256(repr(vocabulary).encode()).hexdigest()
