"""Models not trained with galpaca, prompted with their own chat template or as plain text."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from galpaca.data.chat_rendering import only_turn
from galpaca.data.chat_template import UnboundChatTemplate
from galpaca.data.pinned_date import TEMPLATE_DATE
from galpaca.data.prompts import find_template
from galpaca.data.records import Record
from galpaca.data.tokenizer import Tokenizer
from galpaca.errors import InputError, first_line
from galpaca.inference.hub import prompt_folder
from galpaca.inference.loading import Loaded, PromptFormat, Reader, assembled, load
from galpaca.inference.places import find_model
from galpaca.inference.settings import Dtype, WeightOptions

_TOKENIZER_FIX = "a folder with the model's own tokenizer files"


class PlainText:
    """The instruction, an empty line, the input if there is one, and the end of the line: for models that bring no
    template.

    It ends with one newline, since two are one token before nothing and two before a text in GPT-2's tokenizer: the
    prompt alone would not be the head of the record.
    """

    name = "plain text"
    fingerprint = "plain text, one newline"
    end_text = None

    def prompts(self, record: Record) -> list[str]:
        turn = only_turn(record, self.name)
        return ["\n\n".join(filter(None, (turn.instruction, turn.input))) + "\n"]

    def turns(self, record: Record, is_question: bool = False) -> list[tuple[str, str]]:
        [prompt] = self.prompts(record)
        return [(prompt, record.turns[0].output)]


class OtherReader:
    """Any tokenizer of ``transformers``.

    Attributes:
        hf: the tokenizer.
        eos_id: id of the token that ends a text.
        pad_id: id of the padding token; ``eos_id`` if the tokenizer has none.
        boundary_id: id of the token that a document begins after.

    Raises:
        InputError: it has no ``eos_token``.
    """

    def __init__(self, hf: Any, source: str) -> None:
        self.hf = hf
        if hf.eos_token_id is None:
            fix = "set eos_token in its tokenizer_config.json"
            raise InputError("the tokenizer has no eos_token", where=source, fix=fix)
        self.eos_id: int = hf.eos_token_id
        self.pad_id: int = hf.eos_token_id if hf.pad_token_id is None else hf.pad_token_id
        self.boundary_id: int = hf.eos_token_id if hf.bos_token_id is None else hf.bos_token_id
        # What the tokenizer puts behind a text would stand between prompt and answer.
        self._first = [i for i in list(hf("").input_ids)[:1] if i == hf.bos_token_id]

    def encode(self, texts: Sequence[str], bare: bool = False) -> list[list[int]]:
        first = [] if bare else self._first
        return [first + list(ids) for ids in self.hf(list(texts), add_special_tokens=False).input_ids]

    def mark(self, field: str, before: Sequence[str] = ()) -> str:
        return field

    def whole_text(self, ids: Sequence[int]) -> str:
        return str(self.hf.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.hf.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def load_any(
    name: str,
    *,
    dtype: Dtype | None = None,
    template: str | None = None,
    template_date: str | None = None,
    weights: WeightOptions | None = None,
) -> Loaded:
    """Loads a released model with its template, or another causal model of ``transformers``.

    Args:
        name: as ``load``, or another model's folder, or its name on the Hub.
        dtype, weights: as ``load``.
        template_date: as ``load``; a model that was not trained with galpaca knows none.
        template: template for models without one, instead of plain text.

    Raises:
        InputError: the model or its tokenizer cannot be loaded, or it has no ``eos_token``.
        GalpacaError: out of memory.
    """
    place = find_model(name)
    if prompt_folder(place.path) is not None:
        return load(name, dtype=dtype, template_date=template_date, weights=weights)
    reader, prompt_format = _reading(place.path, template, template_date or TEMPLATE_DATE)
    fingerprints = vocabulary_fingerprint(reader), getattr(prompt_format, "fingerprint", "")
    # Whether it takes earlier turns is its format's matter, which refuses what it cannot write.
    return replace(
        assembled(place, dtype, reader, prompt_format, fingerprints, weights or WeightOptions()), keeps_turns=True
    )


def _reading(path: str, template: str | None, date: str) -> tuple[Reader, PromptFormat]:
    from transformers import AutoTokenizer

    try:
        hf = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # the library raises a dozen unrelated kinds
        raise InputError(f"cannot load the tokenizer: {first_line(error)}", where=path, fix=_TOKENIZER_FIX) from None
    if getattr(hf, "chat_template", None):
        reader = OtherReader(hf, path)
        return reader, UnboundChatTemplate(date).for_questions(hf)
    plain = find_template(template, date).bound(OtherReader(hf, path)) if template else PlainText()
    vocabulary = hf.get_vocab()
    if getattr(hf, "backend_tokenizer", None) is not None and {"</s>", "<pad>"} <= vocabulary.keys():
        return Tokenizer(hf, path), plain  # GALACTICA's and OPT's, as in training
    return OtherReader(hf, path), plain


def vocabulary_fingerprint(reader: Any) -> str:
    """SHA-256 of all tokens and their ids; where two are equal, losses a token can be compared."""
    vocabulary = sorted(reader.hf.get_vocab().items())
    return hashlib.sha256(repr(vocabulary).encode()).hexdigest()
