"""Runs one model on prompts and records; results are cached on disk."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from galpaca.app.console import counting
from galpaca.app.evaluation.inputs import AskedPrompts, HeldOut
from galpaca.app.evaluation.labelled_models import LabelledModel
from galpaca.app.evaluation.loading import load_shown
from galpaca.errors import InputError
from galpaca.files.atomic import replace_file
from galpaca.inference.answers_file import AnswersFile
from galpaca.inference.settings import Dtype, Settings, WeightOptions

if TYPE_CHECKING:
    from galpaca.inference.loading import Loaded
    from galpaca.inference.losses import RecordLoss


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How each model is loaded and evaluated.

    Attributes:
        dtype, template, template_date, weights: as for ``load_any``.
        max_new_tokens: most tokens of an answer.
        batch_size: prompts per batch; None means 16 on a GPU and 8 on a CPU.
        max_length: records longer than this many tokens are left out.
    """

    dtype: Dtype | None = None
    template: str | None = None
    template_date: str | None = None
    weights: WeightOptions = field(default_factory=WeightOptions)
    max_new_tokens: int = 256
    batch_size: int | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What the page shows about a model.

    Attributes:
        label: its label on the page.
        name: its name as given.
        parameters: number of parameters, tied ones counted once.
        template: prompt template of its prompts.
        device_dtype: device and dtype of its weights, in words.
        batch_size: prompts per batch, which its times depend on.
        fingerprint, vocabulary: SHA-256 of the model, and of its tokens.
    """

    label: str
    name: str
    parameters: int
    template: str
    device_dtype: str
    batch_size: int
    fingerprint: str
    vocabulary: str


@dataclass(frozen=True)
class MeasuredModel:
    """A model's answers in the order of the prompts, and its loss on each record."""

    facts: ModelFacts
    answers: list[dict[str, Any]]
    losses: list[RecordLoss]


def measure(
    one: LabelledModel,
    prompts: AskedPrompts,
    held_out: HeldOut | None,
    evaluation: EvaluationSettings,
    cache: Path,
    console: Console,
) -> MeasuredModel:
    """Measures a model, or loads its cached results.

    Args:
        cache: folder of cached results.

    Raises:
        InputError: the model cannot be loaded, or a prompt is too long for it.
        GalpacaError: out of memory.
    """
    loaded = load_shown(one.model, evaluation, console)
    answers = _answers(one, loaded, prompts, evaluation, cache, console)
    losses = [] if held_out is None else _losses(one, loaded, held_out, evaluation.max_length, cache, console)
    return MeasuredModel(facts_of(one, loaded, batch_size_of(loaded, evaluation.batch_size)), answers, losses)


def batch_size_of(loaded: Loaded, given: int | None) -> int:
    return given or (8 if loaded.model.device.type == "cpu" else 16)


def facts_of(one: LabelledModel, loaded: Loaded, batch_size: int) -> ModelFacts:
    from galpaca.inference.any_model import vocabulary_fingerprint
    from galpaca.inference.loading import num_parameters

    return ModelFacts(
        label=one.label,
        name=one.model,
        parameters=num_parameters(loaded.model),
        template=loaded.template.name,
        device_dtype=loaded.device_dtype,
        batch_size=batch_size,
        fingerprint=loaded.fingerprint,
        vocabulary=vocabulary_fingerprint(loaded.tokenizer),
    )


def _answers(
    one: LabelledModel,
    loaded: Loaded,
    prompts: AskedPrompts,
    evaluation: EvaluationSettings,
    cache: Path,
    console: Console,
) -> list[dict[str, Any]]:
    from galpaca.inference.answer import answer_batches, check_lengths, wanted

    settings = Settings(max_new_tokens=evaluation.max_new_tokens)
    size = batch_size_of(loaded, evaluation.batch_size)
    settings_by_name = {
        "model_fingerprint": loaded.fingerprint,
        "prompts_sha256": prompts.fingerprint,
        "batch_size": size,
        **asdict(settings),
    }
    file = AnswersFile(cache / f"{_name(one.label, settings_by_name)}.jsonl", ("index",))
    records = [question.record for question in prompts.questions]
    if note := loaded.note_on_turns(records):
        console.print(f"  {note}", style="yellow", markup=False)
    ids = loaded.prompt_ids(records)
    check_lengths(ids, loaded.positions, [question.where for question in prompts.questions])
    with file.writing(settings_by_name, {"model": one.model}):
        if file.complete:
            console.print(f"  {len(ids):,} answers are already done")
            with file.out.open(encoding="utf-8") as lines:
                return [json.loads(line) for line in lines]
        left = [request for request in wanted(ids, 1) if not file.answered((request.answer_id.prompt,))]
        with counting(console, f"  answers ({loaded.device_dtype})", len(ids)) as progress:
            started = time.perf_counter()
            for some in answer_batches(loaded, left, settings, size):
                seconds = (time.perf_counter() - started) / len(some)
                file.append([_line(answer, seconds) for answer in some])
                progress(len(file.lines))
                started = time.perf_counter()
        file.finish()
    return file.lines


def _line(answer: Any, seconds: float) -> dict[str, Any]:
    return {
        "index": answer.answer_id.prompt,
        "answer": answer.text,
        "finish": answer.finish,
        "tokens": answer.answer_tokens,
        "words": len(answer.text.split()),
        "seconds": round(seconds, 4),
    }


def _losses(
    one: LabelledModel, loaded: Loaded, held_out: HeldOut, max_length: int | None, cache: Path, console: Console
) -> list[RecordLoss]:
    from galpaca.inference.losses import RecordLoss

    settings_by_name = {
        "model_fingerprint": loaded.fingerprint,
        "records_sha256": held_out.fingerprint,
        "max_length": max_length,
    }
    file = cache / f"{_name(one.label, settings_by_name)}.losses.json"
    if file.exists():
        found = _read_losses(file, len(held_out.records))
        console.print(f"  losses of {len(found):,} records are already done")
        return found
    found = losses_shown(loaded, held_out, max_length, console)
    replace_file(file, json.dumps({**settings_by_name, "losses": found}) + "\n")
    return [RecordLoss(*loss) for loss in found]


def losses_shown(loaded: Loaded, held_out: HeldOut, max_length: int | None, console: Console) -> list[RecordLoss]:
    """The loss of each record, with its progress."""
    from galpaca.inference.losses import record_losses

    with counting(console, f"  loss ({loaded.device_dtype})", len(held_out.records)) as progress:
        return record_losses(loaded, held_out.records, max_length=max_length, progress=progress)


def _read_losses(file: Path, num_records: int) -> list[RecordLoss]:
    from galpaca.inference.losses import RecordLoss

    try:
        found = [RecordLoss(*loss) for loss in json.loads(file.read_text(encoding="utf-8"))["losses"]]
        if len(found) != num_records:
            raise ValueError(f"{len(found):,} records instead of {num_records:,}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the file is damaged: {error}", where=file, fix="delete it to measure again") from None
    return found


def _name(label: str, settings_by_name: dict[str, Any]) -> str:
    """File name: the label for people, then a digest of the model, the inputs and the settings."""
    digest = hashlib.sha256(json.dumps(settings_by_name, sort_keys=True).encode()).hexdigest()
    return re.sub(r"[^\w.-]+", "-", label) + f"-{digest[:24]}"
