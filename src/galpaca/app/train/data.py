"""From the configuration to encoded examples and planned steps, where bad input is rejected."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from rich.console import Console

from galpaca.app.config.schema import Config
from galpaca.app.console import counting
from galpaca.app.prepared.rows import open_source
from galpaca.data.cache import cache_entry, cache_key, load_or_encode
from galpaca.data.encoded_set import encode
from galpaca.data.encoding import RecordEncoder
from galpaca.data.examples import EncodedExamples
from galpaca.data.fingerprint import fingerprint, former_fingerprint
from galpaca.data.prompt_file import PromptFile
from galpaca.data.prompts import Template, load_template
from galpaca.data.reading import load_records
from galpaca.data.records import RecordSet
from galpaca.data.scripts import SCRIPT_TAGS, Scripts
from galpaca.data.sources.table import Source
from galpaca.data.spec import DataSpec
from galpaca.data.split import SplitExamples, is_validation
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputError, Problems

if TYPE_CHECKING:
    from galpaca.training.datamodule import AlpacaDataModule


@dataclass(frozen=True)
class PreparedData:
    """Encoded examples, and what they were made with.

    Attributes:
        split: the examples, for training and for validation.
        fingerprint, former_fingerprint: as ``galpaca.data.fingerprint`` has them.
        cached: folder of the encoded examples.
        scripts: how sub- and superscripts are written.
    """

    split: SplitExamples
    tokenizer: Tokenizer
    template: Template
    fingerprint: str
    former_fingerprint: str
    cached: Path
    scripts: Scripts

    @property
    def encoder(self) -> RecordEncoder:
        return RecordEncoder(self.tokenizer, self.template, self.scripts)

    @property
    def prompts(self) -> PromptFile:
        """How the trained model is prompted."""
        keeps_turns = self.split.examples.receipt.conversations > 0
        return PromptFile(self.template, self.tokenizer.splits_sequences, self.scripts, keeps_turns)


@dataclass(frozen=True)
class FoundData:
    """Data that was found and checked before anything heavy is imported.

    Attributes:
        records: the checked records; None if the same file has been encoded before.
        checked: marker file: these records have been encoded before, so they are valid.
    """

    template: Template
    source: Source
    records: RecordSet | None
    cache: Path
    checked: Path


def find_data(spec: DataSpec, run_root: Path) -> FoundData:
    """Finds template and records, and checks records that have never been encoded.

    Args:
        run_root: parent folder of the encoding cache, unless ``spec`` sets one.

    Raises:
        InputError: invalid template or records.
    """
    template = load_template(spec.template)
    source = open_source(spec, run_root)
    cache = Path(spec.cache_dir) if spec.cache_dir else run_root / ".cache" / "encoded"
    checked = cache / f"{cache_key(data=source.fingerprint, reading=asdict(spec.reading))[:32]}.checked"
    records = None if checked.exists() else load_records(source, spec.reading)
    return FoundData(template, source, records, cache, checked)


def prepare_data(spec: DataSpec, found: FoundData, tokenizer_path: str, console: Console) -> PreparedData:
    """Encodes the records, or finds them encoded already.

    Raises:
        InputError: invalid tokenizer, lengths or split.
    """
    source, template = found.source, found.template
    tokenizer = load_tokenizer(tokenizer_path)
    made_from = {"data": source.fingerprint, "tokenizer": tokenizer.fingerprint, "template": template.fingerprint}
    _check_tags(spec, tokenizer)
    scripts = cast(Scripts, spec.sub_superscripts)
    key = cache_key(**made_from, reading=asdict(spec.reading), scripts=scripts, **asdict(spec.policy))

    def encode_now() -> EncodedExamples:
        records = load_records(source, spec.reading) if found.records is None else found.records
        with counting(console, "encoding", len(records)) as progress:
            return encode(records, tokenizer, template, spec.policy, progress, scripts)

    # The cache knows no names: the same bytes may lie in several files.
    examples = load_or_encode(found.cache, key, encode_now).called(source.name)
    with suppress(OSError):  # a cache prepared by someone else may be read-only; then records are checked again
        found.checked.touch()
    _check_count(examples, spec)
    held_out = is_validation(examples.content_hashes, spec.val_fraction)
    split = SplitExamples(examples, np.flatnonzero(~held_out), np.flatnonzero(held_out))
    _check_split(spec, split)
    return PreparedData(
        split,
        tokenizer,
        template,
        fingerprint(examples, held_out),
        former_fingerprint(spec, source, template, tokenizer, examples.receipt),
        cache_entry(found.cache, key),
        scripts,
    )


@dataclass(frozen=True)
class Steps:
    """The run's steps.

    Attributes:
        module: the data, planned.
        num_steps: optimizer steps of the whole run.
        per_epoch: optimizer steps of an epoch.
        num_ranks: number of ranks.
        val_every_steps: optimizer steps between validations.
    """

    module: AlpacaDataModule
    num_steps: int
    per_epoch: int
    num_ranks: int
    val_every_steps: int


def plan_steps(config: Config, data: PreparedData) -> Steps:
    """Plans every step of the run.

    Raises:
        InputError: the token budget of a micro-batch is below the longest example.
    """
    from galpaca.training.datamodule import AlpacaDataModule

    module = AlpacaDataModule(
        data.split,
        config.batch,
        config.trainer,
        seed=config.seed,
        pad_id=data.tokenizer.pad_id,
        pads_to_sizes=config.compute.compiles(config.fast_attention),
    )
    num_ranks = config.trainer.num_ranks
    plan = module.train_plan(num_ranks)
    if len(data.split.val):
        module.val_plan(num_ranks)
    per_epoch = plan.steps_per_epoch
    return Steps(module, module.num_steps, per_epoch, num_ranks, config.trainer.val_every_steps or per_epoch)


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
    examples, val = split.examples, split.val
    if not examples.num_targets[split.train].sum():
        raise InputError("no training example has a target token", where=examples.receipt.source, fix="add records")
    if spec.val_fraction and (not len(val) or not examples.num_targets[val].sum()):
        raise InputError(
            f"{spec.val_fraction:.1%} of {len(examples):,} examples has no target token to validate on",
            where="data.val_fraction",
            fix="use a larger fraction, or data.val_fraction=0",
        )
