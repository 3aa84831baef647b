"""GALACTICA's tokenizer as its model was trained: existing ids named, sequences split, nothing added or resized."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from galpaca.data.sequences import SEQUENCE_TAGS, SPLIT_MARKER, mark_sequences, open_sequence
from galpaca.errors import InputError, first_line

# GALACTICA's tokenizer has these at ids 0 to 3 and names none of them.
_SPECIAL_TOKENS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}

_FIX = "model.tokenizer=FOLDER_OR_HUB_ID (by default that of model.path=)"


class Tokenizer:
    """A Hugging Face tokenizer with GALACTICA's habits; plain OPT tokenizers keep theirs.

    Attributes:
        hf: the tokenizer of ``transformers``, its special tokens named.
        splits_sequences: whether DNA, AMINO, SMILES and I_SMILES sequences are one token a character.
        eos_id: id of ``</s>``, appended to every answer; also what stands between two documents.
        pad_id: id of ``<pad>``.
        vocab_size: one more than the largest id.
        boundary_id: id of the token that a document begins after.
        fingerprint: SHA-256 of everything that decides the ids of a text.
    """

    def __init__(self, hf: Any, source: str) -> None:
        self.hf, self.source = hf, source
        self._backend: Any = getattr(hf, "backend_tokenizer", None)
        if self._backend is None:
            raise InputError("the tokenizer has no tokenizer.json", where=source, fix="save it as a fast tokenizer")
        self._backend.no_truncation()
        self._backend.no_padding()
        _name_special_tokens(hf, source)
        self.eos_id: int = hf.eos_token_id
        self.boundary_id = self.eos_id  # <s> is reserved in GALACTICA's vocabulary, and </s> in OPT's
        self.pad_id: int = hf.pad_token_id
        vocabulary = hf.get_vocab()
        self.vocab_size: int = 1 + max(vocabulary.values())
        self.splits_sequences = set(SEQUENCE_TAGS) <= vocabulary.keys() and self._removes_marker()
        self.fingerprint = self._fingerprint()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, with whatever this tokenizer puts in front of a text; in parallel over texts."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts))]

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

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self._backend.to_str().encode())
        digest.update(f"{self.eos_id} {self.splits_sequences}".encode())
        return digest.hexdigest()


def load_tokenizer(path: str) -> Tokenizer:
    """Loads a tokenizer from a folder or by its Hub id.

    Raises:
        InputError: there is none, it cannot be read, or it has no ``</s>`` or ``<pad>``.
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
    return Tokenizer(hf, path)


def _name_special_tokens(hf: Any, source: str) -> None:
    size = len(hf)
    vocabulary = hf.get_vocab()
    for name, token in _SPECIAL_TOKENS.items():
        if getattr(hf, name) is None and token in vocabulary:
            setattr(hf, name, token)
    missing = [_SPECIAL_TOKENS[name] for name in ("eos_token", "pad_token") if getattr(hf, name) is None]
    if missing:
        raise InputError(
            f"the vocabulary has no {' and no '.join(missing)}",
            where=source,
            why="answers end with </s>, and galpaca never adds tokens to a trained vocabulary",
            fix="use GALACTICA's or OPT's tokenizer",
        )
    if len(hf) != size:
        raise InputError("naming the special tokens changed the vocabulary", where=source, fix="report this tokenizer")
