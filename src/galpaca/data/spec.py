"""Configuration of the training data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from galpaca.data.forms.fields import FIELDS
from galpaca.data.policies import EncodingPolicy, Policy
from galpaca.data.reading import Reading
from galpaca.data.scripts import Scripts
from galpaca.data.sequences import KINDS
from galpaca.errors import Problems

_POLICIES = ("on_empty", "on_empty_instruction", "on_truncation", "on_special_tokens", "on_control_characters")


@dataclass(frozen=True)
class DataSpec:
    """Where the records are and how they are encoded.

    Attributes:
        path: file of records, a list of files, a pattern such as ``data/*.jsonl``, or a folder.
        hub_id: a Hub data set, if there is no path.
        hub_config: configuration of the Hub data set, where it has several.
        hub_split: split of the Hub data set, or of a folder that ``datasets`` has saved.
        hub_revision: branch, tag or commit of the Hub data set; default: the newest.
        fields: the source's column for ``instruction``, ``input`` and ``output``; default: the same names.
            ``fields.input=none``: records have no input.
        on_missing_input: ``empty`` or ``error`` for records whose input is null or absent.
        tags: kind of sequence (``SMILES``, ``I_SMILES``, ``AMINO``, ``DNA``) by column, such as
            ``tags.smiles=SMILES``: the column's text goes between the tags of that kind.
        sub_superscripts: ``galactica`` writes ``x²`` as ``x[START_SUP]2[END_SUP]``, as GALACTICA does; ``keep`` leaves
            it to the tokenizer, which makes ``x2`` of it.
        expected_records: required number of records; null accepts any.
        template: name of a shipped prompt template, or path of a YAML file.
        max_length: examples are truncated to this many tokens.
        val_fraction: fraction of the records held out for validation, chosen by a hash of each record.
        on_empty: ``keep``, ``drop`` or ``error`` for records with an empty output.
        on_empty_instruction: the same for records with an empty instruction.
        on_truncation: the same for records longer than ``max_length``.
        on_special_tokens: the same for records whose texts have ``<s>``, ``</s>``, ``<pad>`` or ``<unk>``.
        on_control_characters: the same for records with control characters, such as those that LaTeX with single
            backslashes becomes in JSON.
        cache_dir: folder for encoded data; default: ``.cache/encoded`` below ``run.root``.
        license: license of the data, for the model card.
        terms: further terms that the data imposes on a model, for the model card.
    """

    path: Any = None
    hub_id: str | None = None
    hub_config: str | None = None
    hub_split: str = "train"
    hub_revision: str | None = None
    fields: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(FIELDS))
    on_missing_input: str = "empty"
    tags: dict[str, str] = field(default_factory=dict)
    sub_superscripts: str = "keep"
    expected_records: int | None = None
    template: str = "alpaca"
    max_length: int = 512
    val_fraction: float = 0.0
    on_empty: str = "keep"
    on_empty_instruction: str = "keep"
    on_truncation: str = "keep"
    on_special_tokens: str = "keep"
    on_control_characters: str = "keep"
    cache_dir: str | None = None
    license: str | None = None
    terms: str | None = None

    def __post_init__(self) -> None:
        with Problems() as problems:
            if not self.path and self.hub_id is None:
                problems.add("no data given", where="data", fix="data=local data.path=FILE, or data.hub_id=NAME")
            if self.path is not None and not all(isinstance(one, str) for one in self.paths):
                what = f"must be a path or a list of paths, got {self.path!r}"
                problems.add(what, where="data.path", fix="data.path=FILE, or data.path=[FILE,FILE]")
            for name in sorted(self.fields.keys() - set(FIELDS)):
                problems.add("unknown field", where=f"data.fields.{name}", fix=f"one of {', '.join(FIELDS)}")
            for column, kind in self.tags.items():
                problems.check_choice(f"data.tags.{column}", kind, KINDS)
            problems.check_choice("data.on_missing_input", self.on_missing_input, ("empty", "error"))
            problems.check_choice("data.sub_superscripts", self.sub_superscripts, get_args(Scripts))
            problems.check_number("data.max_length", self.max_length, "at least 2", "e.g. data.max_length=512")
            problems.check_at_least_one("data.", {"expected_records": self.expected_records})
            fix = "e.g. data.val_fraction=0.05, or 0 for none"
            problems.check_number("data.val_fraction", self.val_fraction, "in [0, 1)", fix)
            for name in _POLICIES:
                problems.check_choice(f"data.{name}", getattr(self, name), get_args(Policy))

    @property
    def paths(self) -> Sequence[str]:
        """The files, patterns and folders; none where a Hub data set is read."""
        if not self.path:
            return ()
        return (self.path,) if isinstance(self.path, str) else tuple(self.path)

    @property
    def reading(self) -> Reading:
        return Reading(self.fields, self.on_missing_input, self.tags)

    @property
    def policy(self) -> EncodingPolicy:
        return EncodingPolicy(self.max_length, **{name: cast(Policy, getattr(self, name)) for name in _POLICIES})
