"""A model's tokenizer as the model was trained: existing ids named, GALACTICA's sequences split, nothing added or
resized.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from galpaca.data.answer_end import special_texts
from galpaca.data.listed_ends import generation_settings, listed_ends
from galpaca.data.sequences import SEQUENCE_TAGS, SPLIT_MARKER, mark_sequences, open_sequence
from galpaca.errors import InputError, first_line

# GALACTICA's tokenizer has these at ids 0 to 3 and names none of them.
_SPECIAL_TOKENS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
# Those ids, of OPT's tokenizer too: where ``</s>`` is what a document begins after.
_OPT_IDS = {token: number for number, token in enumerate(_SPECIAL_TOKENS.values())}

_FIX = "model.tokenizer=FOLDER_OR_HUB_ID (by default that of model.path=)"


class Tokenizer:
    """A Hugging Face tokenizer, with GALACTICA's habits where it has GALACTICA's tokens.

    Args:
        listed_ends: as ``galpaca.data.listed_ends`` finds them beside the tokenizer.

    Attributes:
        hf: the tokenizer of ``transformers``, its special tokens named.
        splits_sequences: whether DNA, AMINO, SMILES and I_SMILES sequences are one token a character.
        eos_id: id of the token that ends a text, such as ``</s>``; also what stands between two documents.
        end_text: its text.
        pad_id: id of the padding token; ``eos_id`` where there is none.
        vocab_size: one more than the largest id.
        boundary_id: id of the token that a document begins after.
        special_texts: texts of the tokens that no record should have in its texts.
        end_ids: all tokens that end an answer unless a template knows another: ``eos_id``, and those that the model's
            generation settings list.
        fingerprint: SHA-256 of everything that decides the ids of a text.

    Raises:
        InputError: it is no fast tokenizer, or has no ``eos_token``.
    """

    def __init__(self, hf: Any, source: str, listed_ends: Sequence[int] = ()) -> None:
        self.hf, self.source = hf, source
        self._backend: Any = getattr(hf, "backend_tokenizer", None)
        if self._backend is None:
            raise InputError("the tokenizer has no tokenizer.json", where=source, fix="save it as a fast tokenizer")
        self._backend.no_truncation()
        self._backend.no_padding()
        _name_special_tokens(hf, source)
        vocabulary = hf.get_vocab()
        is_opts = {token: vocabulary.get(token) for token in _OPT_IDS} == _OPT_IDS
        self.eos_id: int = hf.eos_token_id
        self.end_text = str(hf.eos_token)
        # <s> is reserved in GALACTICA's vocabulary, and </s> begins OPT's documents.
        self.boundary_id: int = self.eos_id if is_opts or hf.bos_token_id is None else hf.bos_token_id
        self.pad_id: int = self.eos_id if hf.pad_token_id is None else hf.pad_token_id
        self.vocab_size: int = 1 + max(vocabulary.values())
        self._front, self._behind = self._put_around()
        self.splits_sequences = set(SEQUENCE_TAGS) <= vocabulary.keys() and self._removes_marker()
        # Tags of citations and sequences are special tokens of GALACTICA's, and belong into texts.
        own = frozenset() if set(SEQUENCE_TAGS) <= vocabulary.keys() else special_texts(hf)
        self.special_texts = frozenset(own | (_OPT_IDS.keys() if is_opts else set()))
        self.end_ids: tuple[int, ...] = tuple(dict.fromkeys([self.eos_id, *listed_ends]))
        self.fingerprint = self._fingerprint()

    def encode(self, texts: Sequence[str], bare: bool = False) -> list[list[int]]:
        """Ids of each text, with whatever this tokenizer puts in front of a text; in parallel over texts.

        What it would put behind a text is left out: it would stand between a prompt and its answer.

        Args:
            bare: nothing is put in front, since the text has its first token.
        """
        is_bare = bare or bool(self._behind)
        found = [one.ids for one in self._backend.encode_batch_fast(list(texts), add_special_tokens=not is_bare)]
        return found if bare or not self._behind else [[*self._front, *ids] for ids in found]

    def mark(self, field: str, before: Sequence[str] = ()) -> str:
        """A field of a record as it goes into ``encode``: its sequences marked, if this tokenizer splits them.

        Args:
            before: of an answer: the fields of its prompt, whose open sequences it may continue.
        """
        return mark_sequences(field, map(open_sequence, before)) if self.splits_sequences else field

    def leaves_open(self, field: str) -> bool:
        """Whether a sequence that is split ends with the field instead of an end tag."""
        return self.splits_sequences and open_sequence(field) is not None

    def has(self, tokens: Iterable[str]) -> bool:
        """Whether each of these is a token of the vocabulary."""
        return set(tokens) <= self.hf.get_vocab().keys()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, its citations, molecules and ``<work>`` kept, ``</s>`` and ``<pad>`` left out."""
        kept = [i for i in ids if i not in (self.eos_id, self.pad_id)]
        return str(self.hf.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def whole_text(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens and all."""
        return str(self.hf.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token; one that is only part of a character shows as a replacement character."""
        return [str(self.hf.decode([i], skip_special_tokens=False, clean_up_tokenization_spaces=False)) for i in ids]

    def changes(self, text: str) -> bool:
        """Whether normalization alters the text: NFKC turns ``x²`` into ``x2``."""
        normalizer = self._backend.normalizer
        return normalizer is not None and not text.isascii() and normalizer.normalize_str(text) != text

    def _removes_marker(self) -> bool:
        marked, plain = self.encode([f"C{SPLIT_MARKER}C", "C"])
        return marked == plain * 2

    def _put_around(self) -> tuple[list[int], list[int]]:
        """Ids that the tokenizer puts in front of a text and behind it."""
        [bare] = (one.ids for one in self._backend.encode_batch_fast(["a"], add_special_tokens=False))
        [whole] = (one.ids for one in self._backend.encode_batch_fast(["a"]))
        num_around = len(whole) - len(bare)
        start = next((i for i in range(num_around + 1) if whole[i : i + len(bare)] == bare), num_around)
        return whole[:start], whole[start + len(bare) :]

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self._backend.to_str().encode())
        digest.update(f"{self.eos_id} {self.splits_sequences}".encode())
        return digest.hexdigest()


def load_tokenizer(path: str) -> Tokenizer:
    """Loads a tokenizer from a folder or by its Hub id.

    Raises:
        InputError: there is none, it cannot be read, or it has no token that ends a text.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers import AutoTokenizer  # seconds to import: after the checks that need no tokenizer

    folder = Path(path)
    if (path.startswith(("/", ".", "~")) or path.count("/") > 1) and not folder.is_dir():
        raise InputError("no such folder", where=path, fix=_FIX)
    if folder.is_dir() and not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise InputError("the folder has no tokenizer.json", where=path, fix=_FIX)
    try:
        hf = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # the library raises a dozen unrelated kinds
        raise InputError(
            f"cannot load the tokenizer: {first_line(error)}",
            where=path,
            fix=f"{_FIX}; without a network, a folder or a cached Hub id",
        ) from None
    settings = generation_settings(path)
    return Tokenizer(hf, path, listed_ends(settings) if settings is not None else ())


def _name_special_tokens(hf: Any, source: str) -> None:
    size = len(hf)
    vocabulary = hf.get_vocab()
    for name, token in _SPECIAL_TOKENS.items():
        if getattr(hf, name) is None and token in vocabulary:
            setattr(hf, name, token)
    if hf.eos_token_id is None:
        raise InputError(
            "the tokenizer has no eos_token",
            where=source,
            why="answers end with it, and galpaca never adds tokens to a trained vocabulary",
            fix="name one of its tokens as eos_token in tokenizer_config.json, or use GALACTICA's tokenizer",
        )
    if len(hf) != size:
        raise InputError("naming the special tokens changed the vocabulary", where=source, fix="report this tokenizer")
