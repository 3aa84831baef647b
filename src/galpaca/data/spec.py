"""Configuration of the training data."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from galpaca.data.forms.fields import FIELDS
from galpaca.data.grouping import KINDS as GROUP_KINDS
from galpaca.data.pinned_date import TEMPLATE_DATE, parsed_date
from galpaca.data.policies import EncodingPolicy, Policy
from galpaca.data.reading import Reading
from galpaca.data.scripts import Scripts
from galpaca.data.sequences import KINDS as SEQUENCE_KINDS
from galpaca.errors import InputError, InputErrors, Problems, restated

# Of an entry of ``mix``: what it does not take from the keys beside it, and all that it may say.
_OWN = ("path", "hub_id", "hub_config", "hub_split", "hub_revision", "val_path", "expected_records", "license", "terms")
_POLICIES = ("on_empty", "on_empty_instruction", "on_truncation", "on_special_tokens", "on_control_characters")
_OF_A_SOURCE = {
    *(*_OWN, *_POLICIES, "epochs", "fields", "tags", "on_missing_input", "template", "val_fraction", "test_fraction"),
    *("split_by", "split_kind", "template_date"),
}

_FRACTION = ((int, float), "a number")
_MAPPING = ((Mapping,), "a mapping of names")
# Kinds of values that are no texts, and what they are called.
_KINDS_OF: Mapping[str, tuple[tuple[type, ...], str]] = {
    "fields": _MAPPING,
    "tags": _MAPPING,
    "val_fraction": _FRACTION,
    "test_fraction": _FRACTION,
    "expected_records": ((int, type(None)), "an integer"),
    **dict.fromkeys(
        (*_POLICIES, "template", "template_date", "hub_split", "on_missing_input", "split_kind"), ((str,), "a string")
    ),
}


@dataclass(frozen=True)
class SourceSpec:
    """One source.

    Attributes:
        name: of a source of a mix; empty where there is but one.
        epochs: how often an epoch takes each record; 0 for records to validate on.
    """

    name: str
    epochs: float
    spec: "DataSpec"


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
            ``none`` as that of the input: records have none.
        on_missing_input: ``empty`` or ``error`` for records whose input is null or absent.
        tags: kind of sequence (``SMILES``, ``I_SMILES``, ``AMINO``, ``DNA``) by column:
            ``SMILES`` for a column ``smiles``: its text goes between the tags of that kind.
        sub_superscripts: ``galactica`` writes ``x²`` as ``x[START_SUP]2[END_SUP]``, as GALACTICA does; ``keep`` leaves
            it to the tokenizer, which makes ``x2`` of it.
        mix: several sources by name, each with ``path`` or ``hub_id`` and what differs from the keys beside:
            ``fields``, ``tags``, ``template``, ``val_path``, ``license`` and others; ``epochs`` says how often an epoch
            takes each record (2 twice, 0.2 another fifth each epoch).
        expected_records: required number of records; null accepts any.
        template: name of a shipped prompt template, or path of a YAML file; ``chat_template`` for the tokenizer's own.
        template_date: what a tokenizer's chat template takes for today.
        max_length: examples are truncated to this many tokens.
        val_fraction: fraction of the records held out for validation, chosen by a hash of each record.
        val_path: files of records to validate on, instead of a fraction.
        test_fraction: fraction of the records that no part of training reads, not even early stopping, for
            ``--split test`` of other commands.
        split_by: column whose value keeps records on one side, such as a molecule, a paper or a protein.
        split_kind: ``value``; or ``scaffold`` for a column of SMILES: molecules with one scaffold stay together.
        on_empty: ``keep``, ``drop`` or ``error`` for records with an empty output.
        on_empty_instruction: the same for records with an empty instruction.
        on_truncation: the same for records longer than ``max_length``.
        on_special_tokens: the same for records whose texts have a special token: ``<s>``, ``</s>``, ``<pad>`` or
            ``<unk>`` with GALACTICA's tokenizer, any of its own with another. With a chat template, ``keep`` refuses an
            answer with text behind a token that ends answers.
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
    mix: dict[str, Any] = field(default_factory=dict)
    expected_records: int | None = None
    template: str = "alpaca"
    template_date: str = TEMPLATE_DATE
    max_length: int = 512
    val_fraction: float = 0.0
    val_path: Any = None
    test_fraction: float = 0.0
    split_by: str | None = None
    split_kind: str = "value"
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
            self._check_sources(problems)
            for name in sorted(self.fields.keys() - set(FIELDS)):
                problems.add("unknown field", where=f"data.fields.{name}", fix=f"one of {', '.join(FIELDS)}")
            for column, kind in self.tags.items():
                problems.check_choice(f"data.tags.{column}", kind, SEQUENCE_KINDS)
            problems.check_choice("data.on_missing_input", self.on_missing_input, ("empty", "error"))
            problems.check_choice("data.sub_superscripts", self.sub_superscripts, get_args(Scripts))
            problems.check_number("data.max_length", self.max_length, "at least 2", "e.g. data.max_length=512")
            problems.check_at_least_one("data.", {"expected_records": self.expected_records})
            problems.collect(lambda: parsed_date(self.template_date))
            for name in _POLICIES:
                problems.check_choice(f"data.{name}", getattr(self, name), get_args(Policy))
            self._check_split(problems)

    @property
    def validates(self) -> bool:
        """Whether records are held out to validate on, or given for it."""
        return any(one.spec.val_fraction > 0 or not one.epochs for one in self.sources)

    def _check_sources(self, problems: Problems) -> None:
        if not self.path and self.hub_id is None and not self.mix:
            problems.add("no data given", where="data", fix="data=local data.path=FILE, or data.hub_id=NAME")
        for key in ("path", "val_path"):
            value = getattr(self, key)
            if value is not None and not all(isinstance(one, str) for one in _listed(value)):
                what = f"must be a path or a list of paths, got {value!r}"
                problems.add(what, where=f"data.{key}", fix=f"data.{key}=FILE, or data.{key}=[FILE,FILE]")
        if self.mix and (self.path or self.hub_id):
            what = "data.mix names all sources, and another is given beside it"
            fix = f"data=local, and data.mix.NAME={{{'path' if self.path else 'hub_id'}: ...}} for that one, too"
            problems.add(what, where="data.path" if self.path else "data.hub_id", fix=fix)
        if self.path is not None and not self.paths:
            problems.add(
                "the list of files is empty", where="data.path", fix="data.path=FILE, or data.path=[FILE,FILE]"
            )
        for name, entry in self.mix.items():
            self._check_entry(problems, name, entry)
        if self.mix:
            defaults = {item.name: item.default for item in fields(DataSpec)}
            given = {key for key in _OWN if key not in ("path", "hub_id") and getattr(self, key) != defaults[key]}
            given |= {"tags"} if self.tags else set()
            given |= {"fields"} if any(self.fields.values()) else set()
            for key in sorted(given):
                what = "with a mix, this belongs to one of its sources"
                problems.add(what, where=f"data.{key}", fix=f"data.mix.{next(iter(self.mix))}.{key}=VALUE")

    def _check_entry(self, problems: Problems, name: str, entry: Any) -> None:
        where = f"data.mix.{name}"
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", str(name)):
            problems.add("a name has letters, digits and _.- only", where=where, fix="choose another")
        if not isinstance(entry, Mapping):
            problems.add(f"must be a mapping, got {entry!r}", where=where, fix=f"{where}={{path: FILE, epochs: 1}}")
            return
        for key in sorted(map(str, entry.keys() - _OF_A_SOURCE)):
            problems.add("unknown key", where=f"{where}.{key}", fix=f"one of {', '.join(sorted(_OF_A_SOURCE))}")
        epochs = entry.get("epochs", 1)
        if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 < epochs < 1_000:
            problems.add(f"must be a number above 0, got {epochs!r}", where=f"{where}.epochs", fix=f"{where}.epochs=1")
        if not entry.get("path") and not entry.get("hub_id"):
            problems.add("no data given", where=where, fix=f"{where}.path=FILE, or {where}.hub_id=NAME")
        elif entry.keys() <= _OF_A_SOURCE and self._check_types(problems, where, entry):
            problems.extend(of_source(name, one) for one in _problems_of(lambda: self._entry_spec(entry)))

    def _check_types(self, problems: Problems, where: str, entry: Mapping[str, Any]) -> bool:
        """Whether every value of an entry is of a kind that its key can have."""
        before = problems.count
        for key, value in entry.items():
            if key in ("path", "val_path", "epochs"):
                continue
            kinds, words = _KINDS_OF.get(key, ((str, type(None)), "a string"))
            is_text = not isinstance(value, Mapping) or all(isinstance(one, str | None) for one in value.values())
            if not isinstance(value, kinds) or isinstance(value, bool) or not is_text:
                problems.add(f"must be {words}, got {value!r}", where=f"{where}.{key}", fix=f"{where}.{key}=VALUE")
        return problems.count == before

    def _check_split(self, problems: Problems) -> None:
        fix = "e.g. data.val_fraction=0.05, or 0 for none"
        problems.check_number("data.val_fraction", self.val_fraction, "in [0, 1)", fix)
        problems.check_number("data.test_fraction", self.test_fraction, "in [0, 1)", fix.replace("val", "test"))
        problems.check_choice("data.split_kind", self.split_kind, GROUP_KINDS)
        if self.val_fraction + self.test_fraction >= 1:
            what = f"{self.val_fraction + self.test_fraction:.0%} of the records are held out"
            problems.add(what, where="data.test_fraction", fix="fractions that leave records to train on")
        if self.val_path is not None and self.val_fraction:
            what = "records to validate on are given twice: as files, and as a fraction"
            problems.add(what, where="data.val_path", fix="data.val_fraction=0")
        if self.split_kind != "value" and not self.split_by:
            problems.add("a scaffold is of a column", where="data.split_kind", fix="data.split_by=COLUMN of SMILES")

    @property
    def paths(self) -> Sequence[str]:
        """The files, patterns and folders; none where a Hub data set is read."""
        return _listed(self.path)

    @property
    def sources(self) -> Sequence["SourceSpec"]:
        """All sources, records to validate on behind those that they belong to."""
        parts = [("", 1.0, self)] if not self.mix else []
        parts += [(name, float(entry.get("epochs", 1)), self._entry_spec(entry)) for name, entry in self.mix.items()]
        found = []
        for name, epochs, spec in parts:
            found.append(SourceSpec(name, epochs, spec))
            if spec.val_path is not None:
                own: dict[str, Any] = {"path": spec.val_path, "hub_id": None, "val_path": None}
                held_out = replace(spec, **own, expected_records=None, split_by=None, split_kind="value")
                found.append(SourceSpec(name, 0.0, held_out))
        return found

    def below(self, folder: Path) -> "DataSpec":
        """The same with relative paths that begin at a folder."""

        def moved(value: Any) -> Any:
            return [str(folder / one) for one in _listed(value)] or None

        def changed(given: Mapping[str, Any]) -> dict[str, Any]:
            paths = {key: moved(given[key]) for key in ("path", "val_path") if given.get(key)}
            template = {
                key: str(folder / name) for key in ("template",) if (name := str(given.get(key))).endswith(".yaml")
            }
            return {**given, **paths, **template}

        own = changed({key: getattr(self, key) for key in ("path", "val_path", "template")})
        cache = None if self.cache_dir is None else str(folder / self.cache_dir)
        mix = {name: changed(entry) for name, entry in self.mix.items()}
        return replace(self, **own, cache_dir=cache, mix=mix)

    def _entry_spec(self, entry: Mapping[str, Any]) -> "DataSpec":
        given = {key: value for key, value in entry.items() if key != "epochs"}
        own = {item.name: item.default for item in fields(DataSpec) if item.name in _OWN}
        given["fields"] = {**dict.fromkeys(FIELDS), **(given.get("fields") or {})}
        return replace(self, **{**own, "mix": {}, "tags": {}, **given})

    @property
    def reading(self) -> Reading:
        return Reading(
            self.fields, self.on_missing_input, self.tags, split_by=self.split_by, split_kind=self.split_kind
        )

    @property
    def policy(self) -> EncodingPolicy:
        return EncodingPolicy(self.max_length, **{name: cast(Policy, getattr(self, name)) for name in _POLICIES})


def of_source(name: str, problem: InputError) -> InputError:
    """A problem of one source of a mix: its keys are those of the source."""
    if not name:
        return problem
    keys = re.compile(rf"\bdata\.({'|'.join(sorted(_OF_A_SOURCE, key=len, reverse=True))})\b")
    where, fix = (keys.sub(rf"data.mix.{name}.\1", text) for text in (problem.where, problem.fix))
    return InputError(problem.what, where=where, why=problem.why, fix=fix)


def naming_source(name: str) -> AbstractContextManager[None]:
    """Errors that leave the context name the keys of one source of a mix."""
    return restated(partial(of_source, name))


def _listed(value: Any) -> Sequence[str]:
    if not value:
        return ()
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


def _problems_of(make: Callable[[], Any]) -> list[InputError]:
    try:
        make()
    except InputErrors as error:
        return list(error.problems)
    except InputError as error:
        return [error]
    return []
