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
from galpaca.data.examples import EncodedExamples
from galpaca.data.fingerprint import fingerprint, former_fingerprint
from galpaca.data.policies import EncodingPolicy, Policy
from galpaca.data.prompts import Template, load_template
from galpaca.data.records import RecordSet, columns_of, load_records
from galpaca.data.sources import Source
from galpaca.data.spec import DataSpec
from galpaca.data.split import SplitExamples, is_validation
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputError

if TYPE_CHECKING:
    from galpaca.training.datamodule import AlpacaDataModule


@dataclass(frozen=True)
class PreparedData:
    """Encoded examples, and what they were made with.

    Attributes:
        split: the examples, for training and for validation.
        fingerprint, former_fingerprint: as ``galpaca.data.fingerprint`` has them.
        cached: folder of the encoded examples.
    """

    split: SplitExamples
    tokenizer: Tokenizer
    template: Template
    fingerprint: str
    former_fingerprint: str
    cached: Path


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
    checked = cache / f"{cache_key(data=source.fingerprint, columns=columns_of(spec.fields))[:32]}.checked"
    records = None if checked.exists() else load_records(source, spec.fields)
    return FoundData(template, source, records, cache, checked)


def prepare_data(spec: DataSpec, found: FoundData, tokenizer_path: str, console: Console) -> PreparedData:
    """Encodes the records, or finds them encoded already.

    Raises:
        InputError: invalid tokenizer, lengths or split.
    """
    source, template = found.source, found.template
    tokenizer = load_tokenizer(tokenizer_path)
    made_from = {"data": source.fingerprint, "tokenizer": tokenizer.fingerprint, "template": template.fingerprint}
    policy = EncodingPolicy(spec.max_length, cast(Policy, spec.on_empty), cast(Policy, spec.on_truncation))
    key = cache_key(**made_from, columns=columns_of(spec.fields), **asdict(policy))

    def encode_now() -> EncodedExamples:
        records = load_records(source, spec.fields) if found.records is None else found.records
        with counting(console, "encoding", len(records)) as progress:
            return encode(records, tokenizer, template, policy, progress)

    examples = load_or_encode(found.cache, key, encode_now)
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
        raise InputError("no training example has a target token", where=spec.path or spec.hub_id, fix="add records")
    if spec.val_fraction and (not len(val) or not examples.num_targets[val].sum()):
        raise InputError(
            f"{spec.val_fraction:.1%} of {len(examples):,} examples has no target token to validate on",
            where="data.val_fraction",
            fix="use a larger fraction, or data.val_fraction=0",
        )
