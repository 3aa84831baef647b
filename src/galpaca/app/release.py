"""The released folder and the run's final figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from galpaca.app.config import Config
from galpaca.app.console import show_rows
from galpaca.app.examples import PreparedData
from galpaca.app.ranks import global_rank
from galpaca.runs.folder import RunFolder
from galpaca.runs.metrics import read_metrics
from galpaca.runs.record import RunRecord

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import OPTConfig


def release(
    config: Config,
    folder: RunFolder,
    record: RunRecord,
    data: PreparedData,
    model_config: OPTConfig,
    console: Console,
) -> None:
    """Writes the final figures and the model folder, on rank 0."""
    if global_rank() != 0:
        return
    import torch

    from galpaca.model.checkpoint_tensors import WEIGHT, CheckpointTensors
    from galpaca.release.card import CardFacts, model_card
    from galpaca.release.export import export
    from galpaca.runs.checkpoints import read_manifest

    checkpoint = folder.checkpoint(folder.last_saved_step())
    final = final_figures(folder)
    record.update(final=final)
    facts = CardFacts(
        name=folder.name,
        model_path=str(folder.model),
        base_model=config.model.path,
        num_parameters=record.content["parameters"],
        dataset=config.data.hub_id or str(config.data.path),
        model_license=config.model.license,
        data_license=config.data.license,
        terms=config.data.terms,
        recipe=_recipe_rows(config, record),
        receipt=data.examples.receipt.rows(),
        results=_result_rows(final),
        template=data.template,
        splits_sequences=data.tokenizer.splits_sequences,
    )
    export(
        CheckpointTensors(checkpoint, read_manifest(checkpoint), WEIGHT),
        model_config,
        data.tokenizer,
        data.template,
        model_card(facts),
        folder.model,
        dtype=getattr(torch, config.release.dtype),
        max_new_tokens=config.release.max_new_tokens,
    )
    show_rows(console, "done", [*_result_rows(final), ("model", str(folder.model))])


def final_figures(folder: RunFolder) -> dict[str, Any]:
    """The run in a few numbers, over all its starts, from ``metrics.jsonl``."""
    lines = list(read_metrics(folder.metrics))
    steps = [line for line in lines if "loss" in line]
    validations = [line for line in lines if "val_loss" in line]
    seconds = sum(line["step_seconds"] for line in steps)
    tokens = sum(line["tokens"] for line in steps)
    final: dict[str, Any] = {
        "steps": len(steps),
        "first_loss": steps[0]["loss"] if steps else None,
        "loss": steps[-1]["loss"] if steps else None,
        "train_seconds": round(seconds, 2),
        "tokens": tokens,
        "target_tokens": sum(line["target_tokens"] for line in steps),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "peak_memory_bytes": max((line["peak_memory_bytes"] for line in steps), default=None),
        "skipped_steps": sum(bool(line.get("skipped")) for line in steps),
    }
    if validations:
        final["val_loss"] = validations[-1]["val_loss"]
    return final


def _recipe_rows(config: Config, record: RunRecord) -> list[tuple[str, str]]:
    plan = record.content["plan"]
    return [
        ("examples a step", f"{config.batch.examples:,}"),
        ("steps", f"{plan['steps']:,} ({plan['steps'] / plan['steps_per_epoch']:.2f} epochs)"),
        ("context", f"{config.data.max_length:,} tokens"),
        ("optimizer", f"AdamW, betas {config.optim.beta1} and {config.optim.beta2}, decay {config.optim.weight_decay}"),
        ("learning rate", f"{config.optim.lr:g}, {config.optim.schedule}, warm-up {config.optim.warmup_ratio:.0%}"),
        ("clip norm", str(config.optim.clip_norm)),
        ("dropout", f"{config.model.dropout}, of attention {config.model.attention_dropout}"),
        ("precision", config.precision.name),
        ("loss", "mean over the target tokens of a step"),
        ("seed", str(config.seed)),
        ("processes", f"{config.trainer.num_ranks} x {config.trainer.accelerator}"),
        ("data fingerprint", str(record.content["recipe"]["data.fingerprint"])),
        ("versions", ", ".join(f"{k} {v}" for k, v in record.content["starts"][-1]["versions"].items())),
    ]


def _result_rows(final: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("loss", f"{_loss(final['first_loss'])} at the first step, {_loss(final['loss'])} at the last"),
        *([("validation loss", _loss(final["val_loss"]))] if "val_loss" in final else []),
        ("steps", f"{final['steps']:,}"),
        ("time in steps", f"{final['train_seconds'] / 60:.1f} min"),
        ("tokens", f"{final['tokens']:,}, {final['tokens_per_second'] or 0:,.0f} a second"),
        ("peak memory", f"{(final['peak_memory_bytes'] or 0) / 2**30:.2f} GiB a process"),
    ]
    if final["skipped_steps"]:
        rows.append(("steps skipped by the loss scaler", str(final["skipped_steps"])))
    return rows


def _loss(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
