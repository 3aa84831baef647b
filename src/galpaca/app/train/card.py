"""The facts of a model card, read from the run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from galpaca.app.train.data_facts import split_rows
from galpaca.app.train.machines import taken_steps
from galpaca.app.train.methods import methods, owed_citations
from galpaca.app.train.recipe_templates import in_short
from galpaca.data.receipt import Receipt
from galpaca.errors import InputError
from galpaca.formatting import format_bytes, format_duration, format_or
from galpaca.release.card import CardFacts
from galpaca.runs.checkpoints import Manifest
from galpaca.runs.folder import RunFolder
from galpaca.runs.history import final_figures
from galpaca.runs.lines import StepLine, ValidationLine
from galpaca.runs.metrics import read_metrics
from galpaca.runs.recipe import DATA
from galpaca.runs.record import RunRecord
from galpaca.runs.record_fields import ExampleCounts, FinalFigures, ReleaseFacts, RunContent, SourceFacts
from galpaca.training.optimizers.adamw import AdamW

if TYPE_CHECKING:
    from galpaca.app.train.trained_model import TrainedModel

Rows = list[tuple[str, str]]


def card_facts(model: TrainedModel, model_path: str, merge_into: str | None = None) -> CardFacts:
    """The facts of one checkpoint; later steps do not count.

    Args:
        model_path: the folder or Hub id that the code snippet uses.
        merge_into: which weights adapters are merged into; None for a folder of adapters alone.
    """
    folder, record, manifest, method = model.folder, model.record, model.weights.manifest, model.weights.method
    facts = record.content.release or ReleaseFacts()
    is_adapter, splits = method.adapter_config() is not None, model.base.tokenizer.splits_sequences
    return CardFacts(
        **{**vars(facts), "merge_into": merge_into or facts.merge_into},
        name=folder.name,
        family=model.base.family,
        model_path=model_path,
        num_parameters=record.content.parameters or manifest.num_parameters,
        num_trained=manifest.num_parameters,
        adapters=("merged" if merge_into else "alone") if is_adapter else None,
        recipe=[("trained", method.describe()), *_recipe_rows(manifest, record)],
        receipt=_receipt_rows(manifest, record),
        results=[
            *result_rows(figures_of(folder, manifest.step)),
            *_merged_rows(model, merge_into),
            *((one.what, one.how) for one in taken_steps(record.content.starts, folder.metrics, manifest.step)),
        ],
        splits_sequences=splits,
        takes_input=model.base.prompts.template.takes_input,
        end_ids=model.base.end_ids,
        methods=methods(record.content, manifest, folder.metrics, folder.system, method.describe()),
        citations=owed_citations(record.content, manifest, method.describe(), splits_sequences=splits),
    )


def figures_of(folder: RunFolder, last_step: int | None = None) -> FinalFigures:
    """Summary metrics of the run over all its starts, from ``metrics.jsonl``.

    Args:
        last_step: ignore later steps.
    """
    lines = [line for line in read_metrics(folder.metrics) if last_step is None or line.step <= last_step]
    steps = [line for line in lines if isinstance(line, StepLine)]
    return final_figures(steps, [line for line in lines if isinstance(line, ValidationLine)])


# Which weights adapters are merged into, in words.
_MERGED = {"trained": "as they were in training", "original": "as they are in their files"}


def _merged_rows(model: TrainedModel, merge_into: str | None) -> Rows:
    """Of a whole model that was made of adapters: which weights they went into, and what either choice costs."""
    if merge_into is None or model.weights.method.adapter_config() is None:
        return []
    rows = [("adapters are merged into", f"the frozen weights {_MERGED[merge_into]}, in float32, rounded once")]
    losses = model.record.content.merged
    if losses is not None and model.weights.manifest.step == (losses.step or model.record.content.num_steps):
        each = ((_MERGED[name], getattr(losses, name)) for name in _MERGED)
        rows += [(f"validation loss, merged into the weights {words}", f"{loss:.4f}") for words, loss in each]
    return rows


def early_stop_rows(content: RunContent) -> Rows:
    """Why training ended before its last step; none where it did not."""
    if content.early_stop_step is None:
        return []
    return [("ended early", f"after step {content.early_stop_step:,}: the validation loss no longer fell")]


def result_rows(final: FinalFigures) -> Rows:
    loss = partial(format_or, how=".4f", absent="none")
    first = "the first step" if final.first_step is None else f"step {final.first_step:,}"
    lost = (
        f", and {final.lost_steps:,} whose figures are lost: of these, nothing below knows" if final.lost_steps else ""
    )
    rows = [
        ("loss", f"{loss(final.first_loss)} at {first}, {loss(final.loss)} at the last"),
        *([("validation loss", loss(final.val_loss))] if final.validations else []),
        ("steps", f"{final.steps:,}{lost}"),
        ("time in training steps", format_duration(final.train_seconds)),
        ("tokens", f"{final.tokens:,} ({final.tokens_per_second or 0:,.0f} tokens/s)"),
        ("peak memory", f"{format_bytes(final.peak_memory_bytes or 0)} a process"),
    ]
    if final.skipped_steps:
        rows.append(("steps skipped by the loss scaler", str(final.skipped_steps)))
    return rows


# Label of a row, the recipe keys it shows, and their format.
_RECIPE: Sequence[tuple[str, tuple[str, ...], Callable[..., str]]] = (
    ("examples per step", ("batch.examples",), "{:,}".format),
    ("context length", ("data.max_length",), "{:,} tokens".format),
    ("learning rate", ("optim.lr", "optim.schedule", "optim.warmup_ratio"), "{:g}, {}, warm-up {:.0%}".format),
    ("gradient clip norm", ("optim.clip_norm",), "{}".format),
    ("dropout", ("model.dropout", "model.attention_dropout"), "{}, attention {}".format),
    ("precision", ("precision.name",), "{}".format),
)


def _recipe_rows(manifest: Manifest, record: RunRecord) -> Rows:
    plan, settings = record.content.plan, manifest.recipe.settings
    if plan is None:  # it is written before the first step
        raise InputError("the plan of the run is missing", where=record.path, fix="restore the file")
    steps = f"{manifest.step:,} of {plan.steps:,} ({manifest.step / plan.steps_per_epoch:.2f} epochs)"
    versions = record.content.last_start.versions
    return [
        ("steps", steps),
        *early_stop_rows(record.content),
        ("optimizer", _optimizer(manifest)),
        *(
            (label, text_of(*(settings[key] for key in keys)))
            for label, keys, text_of in _RECIPE
            if settings.keys() >= set(keys)
        ),
        *([("prompt template", in_short(settings))] if "data.template" in settings else []),
        *([("seed", str(settings["seed"]))] if "seed" in settings else []),
        ("loss", "mean over the target tokens of a step"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]


def _optimizer(manifest: Manifest) -> str:
    """What the checkpoint says; before it said so, AdamW with the settings of the recipe."""
    if manifest.optimizer is not None:
        return manifest.optimizer.description
    settings = manifest.recipe.settings
    return AdamW(**{item.name: settings.get(f"optim.{item.name}", item.default) for item in fields(AdamW)}).describe()


def _receipt_rows(manifest: Manifest, record: RunRecord) -> Rows:
    """Only the file's name is shown: its path is private."""
    release, examples = record.content.release or ReleaseFacts(), record.content.examples or ExampleCounts()
    try:
        rows = Receipt.from_dict({**record.content.receipt, "source": release.dataset}).rows()
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        what = f"the receipt of the data cannot be read: {error}"
        raise InputError(what, where=record.path, fix="restore the file") from None
    return [
        ("fingerprint (SHA-256)", str(manifest.recipe.settings[DATA])),
        *rows,
        *((f"source {one.name}", _source(one)) for one in record.content.sources),
        *(split_rows(examples) or [("held out", "0")]),
    ]


def _source(one: SourceFacts) -> str:
    license = f"license {one.license}" if one.license else "no license stated"
    return f"{one.dataset}: {one.receipt.get('records', 0):,} records, {one.epochs:g} per epoch, {license}"
