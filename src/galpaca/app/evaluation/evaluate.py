"""``galpaca evaluate``: loss on records, or lm-eval tasks; results are saved with the model and added to its card."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

import galpaca
from galpaca.app.console import make_console, show_rows
from galpaca.app.evaluation.inputs import HeldOut, read_records, records_of_split
from galpaca.app.evaluation.labelled_models import LabelledModel, labelled_models
from galpaca.app.evaluation.loading import check_date, load_shown
from galpaca.app.evaluation.measure import batch_size_of, facts_of, losses_shown
from galpaca.app.evaluation.results import ResultsTarget, keep_result, results_target
from galpaca.app.options.names import ReadingOptions, with_option_names
from galpaca.app.run_data import trained_on
from galpaca.data.prompts import find_template
from galpaca.errors import InputError, Problems
from galpaca.formatting import format_or
from galpaca.inference.figures import Measured, loss_rows, perplexity
from galpaca.inference.places import find_model
from galpaca.inference.settings import Dtype, WeightOptions

if TYPE_CHECKING:
    from galpaca.inference.harness import Tasks
    from galpaca.inference.loading import Loaded


@dataclass(frozen=True)
class EvaluateOptions:
    """Which model to evaluate, and where to save the results.

    Attributes:
        model: released folder, run folder, another model's folder, or Hub id.
        out: results folder; None saves them with the model and adds them to its card.
        dtype, template, template_date, weights: as for ``load_any``.
        max_length: records are truncated to this many tokens.
    """

    model: str
    out: Path | None
    dtype: Dtype | None
    template: str | None
    max_length: int | None
    weights: WeightOptions = field(default_factory=WeightOptions)
    template_date: str | None = None


@dataclass(frozen=True)
class TaskOptions:
    """Which lm-eval tasks to run, and how.

    Attributes:
        names: names of tasks or groups.
        include_path: folder with additional task files.
        limit: most examples per task.
        batch_size: prompts per batch; None means 16 on a GPU and 8 on a CPU.
        num_fewshot: few-shot examples per prompt; None uses the task's default.
        instruct: use the model's prompt template; None does so for generative tasks only.
    """

    names: Sequence[str]
    include_path: Path | None
    limit: int | None
    batch_size: int | None
    num_fewshot: int | None
    instruct: bool | None


@with_option_names()
def evaluate_records(
    options: EvaluateOptions, records: Path | None, reading: ReadingOptions, split: str | None = None
) -> None:
    """Loss and perplexity over records, as training counts them, for all and for each category.

    Args:
        records: file of them; None takes those of the model's run.
        reading: how the file is read.
        split: which of the run's records: ``val``, ``test`` or ``train``.

    Raises:
        InputError: invalid model, records or paths.
    """
    console = make_console()
    with Problems() as problems:
        one, target = _door(options, problems)
        held_out = problems.collect(lambda: _records(options, records, reading, split, console))
    assert target is not None
    assert held_out is not None
    loaded = load_shown(options.model, options, console)
    result = _records_result(options, one, loaded, held_out, console)
    stem = re.sub(r"[^\w.-]+", "-", records.stem if records else str(split))
    name = "-".join(["records", stem, held_out.fingerprint[:8], *_of_settings(options)])
    keep_result(target, f"{name}.json", result, one.label, console)
    _show_losses(console, result)


def _records(
    options: EvaluateOptions, records: Path | None, reading: ReadingOptions, split: str | None, console: Console
) -> HeldOut:
    if records is not None:
        return read_records(records, reading)
    return records_of_split([options.model], str(split), console)


def _of_settings(options: EvaluateOptions) -> list[str]:
    """What was requested besides the usual, so that one result does not replace another."""
    limit = [f"max-length-{options.max_length}"] if options.max_length is not None else []
    dtype = [options.dtype] if options.dtype is not None else []
    date = [f"date-{options.template_date}"] if options.template_date is not None else []
    return [*limit, *dtype, *(["4bit"] if options.weights.four_bits else []), *date]


def _records_result(
    options: EvaluateOptions, one: LabelledModel, loaded: Loaded, held_out: HeldOut, console: Console
) -> dict[str, Any]:
    losses = losses_shown(loaded, held_out, options.max_length, console)
    trained = trained_on(options.model, held_out.records, console)
    if not any(loss.num_targets for loss in losses):
        raise InputError(
            "no record has a target token",
            where=held_out.source,
            why="the prompts alone fill the context",
            fix="use a larger --max-length, or shorter records",
        )
    measured = Measured(
        categories=held_out.categories,
        nll=np.array([[loss.nll for loss in losses]]),
        tokens=np.array([[loss.num_targets for loss in losses]], float),
        num_bytes=np.array([record.num_answer_bytes for record in held_out.records], float),
    )
    num_truncated = sum(loss.is_truncated for loss in losses)
    rows = []
    for row in loss_rows(measured):
        [of_model] = row["models"]
        loss = of_model["nats_per_token"]
        if loss is None:  # a category whose records have lost all their targets
            continue
        # The bytes of a truncated record are not those of its loss.
        bits = None if num_truncated else of_model["bits_per_byte"]
        losses_of = {"loss": loss, "perplexity": perplexity(loss["value"]), "bits_per_byte": bits}
        counts = {"records": row["records"], "target_tokens": of_model["target_tokens"]}
        rows.append({"category": row["category"], **counts, **losses_of})
    return {
        **_head("records", one, loaded),
        "records": {
            "source": held_out.source,
            "sha256": held_out.fingerprint,
            "count": len(losses),
            "truncated": num_truncated,
            "trained_on": trained.count,
            "without_target": sum(not loss.num_targets for loss in losses),
        },
        "settings": {"max_length": options.max_length, "dtype": str(loaded.model.dtype).removeprefix("torch.")},
        "rows": rows,
    }


def _show_losses(console: Console, result: Mapping[str, Any]) -> None:
    records = result["records"]
    rows = [(row["category"], _told_loss(row)) for row in result["rows"]]
    if records["trained_on"] is None:
        rows.append(("trained on", "not checked: the model is of no run whose records are at hand"))
    elif records["trained_on"]:
        rows.append(("trained on", f"{records['trained_on']:,} of {records['count']:,} records"))
    if records["truncated"]:
        rows.append(("truncated", f"{records['truncated']:,} of {records['count']:,} records, as in training"))
    show_rows(console, "loss per target token, perplexity, 95 % confidence interval of the loss", rows)


def _told_loss(row: Mapping[str, Any]) -> str:
    loss = row["loss"]
    interval = "" if loss["low"] is None else f"  [{loss['low']:.4f}, {loss['high']:.4f}]"
    size = f"  {row['target_tokens']:,} tokens, {row['records']:,} records"
    return f"{loss['value']:.4f}  {format_or(row['perplexity'], '.4g', '–')}{interval}{size}"


@with_option_names()
def evaluate_tasks(options: EvaluateOptions, tasks: TaskOptions) -> None:
    """Runs lm-eval tasks.

    Raises:
        InputError: invalid model, tasks or paths, or lm-eval is not installed.
    """
    console = make_console()
    with Problems() as problems:
        one, target = _door(options, problems)
        problems.check_at_least_one("--", {"limit": tasks.limit, "batch-size": tasks.batch_size})
        problems.check_number("--num-fewshot", tasks.num_fewshot, "at least 0", "0 or more")
        if not tasks.names:
            problems.add("no task given", where="--tasks", fix="--tasks NAME[,NAME]")
    assert target is not None
    from galpaca.inference.harness import Tasks

    with console.status("loading the tasks"):
        to_be_had = Tasks(tasks.names, tasks.include_path)
        found = to_be_had.find()
    loaded = load_shown(options.model, options, console)
    for task in found:
        instruct = task.generates if tasks.instruct is None else tasks.instruct
        how = "with the prompt template" if instruct else "as plain text"
        console.print(f"{task.name}, {how}", style="bold", markup=False)
        result = {**_head("tasks", one, loaded), **_run_task(to_be_had, task.name, instruct, tasks, loaded)}
        keep_result(target, _file_name(task.name, instruct, tasks, options.template_date), result, one.label, console)
        show_rows(console, task.name, [_told_task(row) for row in result["rows"]])


def _run_task(tasks: Tasks, name: str, instruct: bool, options: TaskOptions, loaded: Loaded) -> dict[str, Any]:
    """Settings and rows of a task's result.

    Args:
        instruct: put questions into the prompt template.
    """
    from importlib.metadata import version

    from galpaca.inference.harness import task_rows

    size = batch_size_of(loaded, options.batch_size)
    how: Any = {"instruct": instruct, "limit": options.limit, "num_fewshot": options.num_fewshot, "batch_size": size}
    results = tasks.run(loaded, [name], **how)
    return {"settings": {"task": name, **how, "lm_eval": version("lm_eval")}, "rows": task_rows(results)}


def _file_name(task: str, instruct: bool, options: TaskOptions, date: str | None) -> str:
    """Each combination of settings has its own file; the same settings overwrite it."""
    parts = [
        re.sub(r"[^\w.-]+", "-", task),
        "template" if instruct else "plain",
        *([f"{options.num_fewshot}shots"] if options.num_fewshot is not None else []),
        *([f"first{options.limit}"] if options.limit is not None else []),
        *([f"date-{date}"] if date is not None else []),
    ]
    return f"task-{'-'.join(parts)}.json"


def _told_task(row: Mapping[str, Any]) -> tuple[str, str]:
    name = f"{row['task']} {row['metric']}" + (f" ({row['filter']})" if row["filter"] else "")
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.4f}"
    return name, f"{row['value']:.4f}{error}"


def _door(options: EvaluateOptions, problems: Problems) -> tuple[LabelledModel, ResultsTarget | None]:
    problems.check_number("--max-length", options.max_length, "at least 1", "--max-length 512")
    problems.collect(lambda: check_date(options.template_date))
    if options.template:
        template = options.template
        problems.collect(lambda: find_template(template))
    [one] = labelled_models([options.model], problems)
    if problems.count:
        return one, None
    return one, problems.collect(lambda: _target(one.model, options.out))


def _target(model: str, out: Path | None) -> ResultsTarget:
    home = find_model(model).home
    if home is None and out is None:
        fix = "--out FOLDER for the results"
        raise InputError("a checkpoint has no folder for results", where=model, fix=fix)
    return results_target(home or Path(model), out)


def _head(kind: str, one: LabelledModel, loaded: Loaded) -> dict[str, Any]:
    facts = asdict(facts_of(one, loaded, 0))
    # Its path, and how many records went at a time, are nobody's business.
    kept = {name: value for name, value in facts.items() if name not in ("name", "batch_size")}
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return {"kind": kind, "galpaca": galpaca.__version__, "written_at": written, "model": kept}
