"""From the configuration to encoded examples and planned steps, where bad input is rejected."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from rich.console import Console

from galpaca.app.console import counting
from galpaca.app.prepared.rows import open_source
from galpaca.app.train.used_templates import SourceTemplate, UsedTemplates
from galpaca.data.cache import cache_entry, cache_key, load_or_encode
from galpaca.data.encoded_set import encode
from galpaca.data.encoding import RecordEncoder
from galpaca.data.examples import EncodedExamples, running_totals
from galpaca.data.fingerprint import fingerprint, former_fingerprint
from galpaca.data.join import join
from galpaca.data.prompt_file import PromptFile
from galpaca.data.prompting import AnyTemplate, BoundTemplate
from galpaca.data.prompts import find_template
from galpaca.data.reading import load_records
from galpaca.data.records import RecordSet
from galpaca.data.scripts import SCRIPT_TAGS, Scripts
from galpaca.data.sources.table import Source
from galpaca.data.spec import DataSpec, SourceSpec, naming_source
from galpaca.data.split import TEST, VALIDATION, SourceExamples, SplitExamples, least_fractions, sides_of
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputError, Problems


@dataclass(frozen=True)
class PreparedData:
    """Encoded examples, and what they were made with.

    Attributes:
        split: the examples, for training, validation and a test.
        fingerprint, former_fingerprint: as ``galpaca.data.fingerprint`` has them; the latter of a single source.
        cached: folders of the encoded examples.
        scripts: how sub- and superscripts are written.
        keeps_turns: whether the released model was trained on conversations in its own form.
        in_released_form: (N,) which examples are prompted as the released model is.
    """

    split: SplitExamples
    tokenizer: Tokenizer
    templates: UsedTemplates
    fingerprint: str
    former_fingerprint: str | None
    cached: tuple[Path, ...]
    scripts: Scripts
    keeps_turns: bool
    in_released_form: npt.NDArray[np.bool_]

    @property
    def template(self) -> BoundTemplate:
        """The released model's."""
        return self.templates.released

    @property
    def encoder(self) -> RecordEncoder:
        return RecordEncoder(self.tokenizer, self.template, self.scripts)

    @property
    def prompts(self) -> PromptFile:
        """How the trained model is prompted."""
        splits = self.tokenizer.splits_sequences
        return PromptFile(self.template, splits, self.scripts, self.keeps_turns, self.end_ids)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """All tokens that end an answer, the released model's first."""
        return self.templates.end_ids(self.tokenizer)


@dataclass(frozen=True)
class FoundSource:
    """A source that was found and checked.

    Attributes:
        records: the checked records; None if the same content has been encoded before.
        checked: marker file: these records have been encoded before, so they are valid.
    """

    spec: SourceSpec
    template: AnyTemplate
    source: Source
    records: RecordSet | None
    checked: Path


@dataclass(frozen=True)
class FoundData:
    """Data that was found and checked before anything heavy is imported.

    Attributes:
        template: of the released model's prompts; a tokenizer's own has none yet.
        cache: folder of encoded examples.
    """

    template: AnyTemplate
    sources: Sequence[FoundSource]
    cache: Path


def find_data(spec: DataSpec, run_root: Path) -> FoundData:
    """Finds templates and records, and checks records that have never been encoded.

    Args:
        run_root: parent folder of the encoding cache, unless ``spec`` sets one.

    Raises:
        InputError: invalid templates or records, of all sources at once.
    """
    cache = Path(spec.cache_dir) if spec.cache_dir else run_root / ".cache" / "encoded"
    with Problems() as problems:
        template = problems.collect(partial(find_template, spec.template, spec.template_date))
        found = [problems.collect(partial(_find, one, run_root, cache)) for one in spec.sources]
    assert template is not None
    return FoundData(template, [one for one in found if one is not None], cache)


def _find(one: SourceSpec, run_root: Path, cache: Path) -> FoundSource:
    with naming_source(one.name):
        return _found(one, run_root, cache)


def _found(one: SourceSpec, run_root: Path, cache: Path) -> FoundSource:
    template = find_template(one.spec.template, one.spec.template_date)
    source = open_source(one.spec, run_root)
    checked = cache / f"{cache_key(**_read_as(source, one.spec))[:32]}.checked"
    records = None if checked.exists() else load_records(source, one.spec.reading)
    return FoundSource(one, template, source, records, checked)


def _read_as(source: Source, spec: DataSpec) -> dict[str, Any]:
    """What determines the records: names of files do not."""
    return {"data": source.fingerprint, "kind": source.kind, "reading": asdict(spec.reading)}


def prepare_data(spec: DataSpec, found: FoundData, tokenizer_path: str, console: Console) -> PreparedData:
    """Encodes the records, or finds them encoded already, and splits them.

    Raises:
        InputError: invalid tokenizer, lengths or split; or the tokenizer has no chat template to train with, or the
            released model would have another than the examples.
    """
    tokenizer = load_tokenizer(tokenizer_path)
    templates = _bound_templates(found, tokenizer)
    parts, folders, sides_of_each = [], [], []
    for one, of_source in zip(found.sources, templates.sources, strict=True):
        with naming_source(one.spec.name):
            part, folder = _encoded(one, found.cache, tokenizer, of_source.template, console)
            sides_of_each.append(_sides(one.spec, part))
            parts.append(part)
            folders.append(folder)
    examples = join(parts)
    sides = np.concatenate(sides_of_each)
    split = SplitExamples.of(examples, sides, _named(found.sources, parts))
    _check_split(spec, split)
    return PreparedData(
        split,
        tokenizer,
        templates,
        fingerprint(examples, sides),
        _former_fingerprint(found.sources, tokenizer, examples),
        tuple(folders),
        cast(Scripts, spec.sub_superscripts),
        templates.keeps_turns(parts),
        templates.in_released_form(parts),
    )


def _bound_templates(found: FoundData, tokenizer: Tokenizer) -> UsedTemplates:
    """The templates of a tokenizer.

    Raises:
        InputError: it has none to train with, or the released model would have another than the examples.
    """
    released, sources = found.template.bound(tokenizer), []
    for one in found.sources:
        with naming_source(one.spec.name):
            sources.append(SourceTemplate(one.spec.name, one.template.bound(tokenizer), one.spec.epochs > 0))
    templates = UsedTemplates(released, tuple(sources))
    templates.check()
    return templates


def _encoded(
    one: FoundSource, cache: Path, tokenizer: Tokenizer, template: BoundTemplate, console: Console
) -> tuple[EncodedExamples, Path]:
    """The examples of a source, and the folder that they are cached in."""
    spec = one.spec.spec
    _check_tags(spec, tokenizer)
    scripts = cast(Scripts, spec.sub_superscripts)
    how = {"tokenizer": tokenizer.fingerprint, "template": template.fingerprint, "scripts": scripts}
    key = cache_key(**_read_as(one.source, spec), **how, **asdict(spec.policy))

    def encode_now() -> EncodedExamples:
        records = load_records(one.source, spec.reading) if one.records is None else one.records
        words = f"encoding {one.spec.name}".rstrip()
        with counting(console, words, len(records)) as progress:
            return encode(records, tokenizer, template, spec.policy, progress, scripts)

    # The cache knows no names: the same bytes may lie in several files.
    examples = load_or_encode(cache, key, encode_now).called(one.source.name)
    with suppress(OSError):  # a cache prepared by someone else may be read-only; then records are checked again
        one.checked.touch()
    _check_count(examples, spec)
    return examples, cache_entry(cache, key)


def _sides(one: SourceSpec, examples: EncodedExamples) -> npt.NDArray[np.uint8]:
    if not one.epochs:
        return np.full(len(examples), VALIDATION, np.uint8)
    sides = sides_of(examples.content_hashes, one.spec.val_fraction, one.spec.test_fraction)
    for key, side in (("val_fraction", VALIDATION), ("test_fraction", TEST)):
        fraction = getattr(one.spec, key)
        if fraction and not examples.num_targets[sides == side].sum():
            by = f" in {len(np.unique(examples.content_hashes)):,} groups" if one.spec.split_by else ""
            raise InputError(
                f"{fraction:.1%} of {len(examples):,} examples{by} has no target token to measure on",
                where=f"data.{key}",
                why="which side a record or group is on is decided by its hash, so that few may all be on one",
                fix=f"{_least_held_out(one.spec, examples)}data.{key}=0",
            )
    return sides


def _least_held_out(spec: DataSpec, examples: EncodedExamples) -> str:
    """The fractions that hold out the fewest, to be typed; where no fractions hold out any, to add records."""
    with_test = spec.test_fraction > 0
    found = least_fractions(examples.content_hashes[examples.num_targets > 0], with_test=with_test)
    if found is None:
        return "add records; or "
    val, test = found
    return f"data.val_fraction={val:.2f}{f' data.test_fraction={test:.2f}' if with_test else ''}; or "


def _named(sources: Sequence[FoundSource], parts: Sequence[EncodedExamples]) -> tuple[SourceExamples, ...]:
    """Which examples are whose, where there are several sources."""
    if all(not one.spec.name for one in sources):
        return ()
    firsts = running_totals([len(part) for part in parts]).tolist()
    return tuple(
        SourceExamples(one.spec.name, first, len(part), one.spec.epochs, part.receipt)
        for one, part, first in zip(sources, parts, firsts, strict=False)
    )


def _former_fingerprint(sources: Sequence[FoundSource], tokenizer: Tokenizer, examples: EncodedExamples) -> str | None:
    """Runs that had it had one source, and no other side than by a fraction."""
    if len(sources) > 1 or sources[0].spec.spec.test_fraction or sources[0].spec.spec.split_by:
        return None
    [one] = sources
    return former_fingerprint(one.spec.spec, one.source, one.template.bound(tokenizer), tokenizer, examples.receipt)


def _check_tags(spec: DataSpec, tokenizer: Tokenizer) -> None:
    """Tags that are no tokens would be read as any text.

    Raises:
        InputError: the configuration needs tags that the tokenizer does not have.
    """
    with Problems() as problems:
        if spec.tags and not tokenizer.splits_sequences:
            what = "the tokenizer has no tokens for sequences"
            problems.add(what, where="data.tags", fix="data.tags={}, or use GALACTICA's tokenizer")
        if spec.sub_superscripts == "galactica" and not tokenizer.has(SCRIPT_TAGS):
            what = "the tokenizer has no tokens for sub- and superscripts"
            problems.add(what, where="data.sub_superscripts", fix="data.sub_superscripts=keep")


def _check_count(examples: EncodedExamples, spec: DataSpec) -> None:
    records = examples.receipt.records
    if spec.expected_records is not None and records != spec.expected_records:
        raise InputError(
            f"expected {spec.expected_records:,} records, got {records:,}",
            where=examples.receipt.source,
            why="the recipe is defined for that number",
            fix="data.expected_records=null accepts any number",
        )


def _check_split(spec: DataSpec, split: SplitExamples) -> None:
    if not split.examples.num_targets[split.train].sum():
        where = split.examples.receipt.source
        raise InputError("no training example has a target token", where=where, fix="add records")
