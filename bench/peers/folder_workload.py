"""A workload of a model that exists: a folder of ``transformers``, prompted with its tokenizer's chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.peers.workload import EXAMPLES_PER_MICRO_BATCH, SEED, Shape, Workload, write_json
from galpaca.data.encoding import Encoding, RecordEncoder
from galpaca.data.plan import StepPlan
from galpaca.data.reading import load_records
from galpaca.data.records import Record
from galpaca.data.sources.files import FileSource
from galpaca.errors import InputError

CHAT_TEMPLATE = "chat_template"


class Steps(NamedTuple):
    """How long a contender trains.

    Attributes:
        num_steps: optimizer steps.
        examples: of a step.
        lr: learning rate.
    """

    num_steps: int
    examples: int
    lr: float

    @property
    def num_records(self) -> int:
        """So many that none comes twice."""
        return self.num_steps * self.examples


def make_folder_workload(
    folder: Path, data: Path, model: Path, steps: Steps, *, row_tokens: int, max_tokens: int, packed_rows: int
) -> Workload:
    """Takes the first records whose whole example fits into a row, and orders them by galpaca's plan.

    Args:
        row_tokens: that examples may have, and that rows are padded and packed to.

    Raises:
        InputError: no such model or records, too few of them, or the tokenizer has no chat template.
    """
    if not (model / "config.json").is_file():
        raise InputError("there is no such model", where=model, fix="--model FOLDER, with a config.json")
    if steps.examples % EXAMPLES_PER_MICRO_BATCH:
        fix = f"--step-examples {steps.examples // EXAMPLES_PER_MICRO_BATCH * EXAMPLES_PER_MICRO_BATCH or 4}"
        what = f"{steps.examples} is no multiple of the {EXAMPLES_PER_MICRO_BATCH} of a micro-batch"
        raise InputError(what, where="--step-examples", fix=fix)
    records, encodings = chosen(data, encoder_of(model), steps.num_records, row_tokens)
    write_json(folder / "records.json", [record.turns[0]._asdict() for record in records])
    write_json(folder / "examples.json", in_order(encodings, steps))
    (folder / "model").symlink_to(model.resolve())
    shape = shape_of(model, row_tokens)
    workload = Workload(
        folder=str(folder),
        shape=shape,
        num_steps=steps.num_steps,
        num_records=len(records),
        step_examples=steps.examples,
        max_tokens=max_tokens,
        packed_rows=packed_rows,
        mean_tokens=float(np.mean([len(one.ids) for one in encodings])),
        head_share=head_share_of(model),
        tokenizer=None,
        template=CHAT_TEMPLATE,
        lr=steps.lr,
    )
    workload.save()
    return workload


def encoder_of(model: Path) -> RecordEncoder:
    """As galpaca encodes for this model.

    Raises:
        InputError: the model cannot be loaded, or its tokenizer has no chat template.
    """
    from galpaca.inference.any_model import load_any

    loaded = load_any(str(model))
    if not loaded.tokenizer.hf.chat_template:  # type: ignore[attr-defined]
        raise InputError("the tokenizer has no chat template", where=model, fix="a model that was made for chats")
    return loaded.encoder


def chosen(data: Path, encoder: RecordEncoder, count: int, longest_tokens: int) -> tuple[list[Record], list[Encoding]]:
    """The first records that fit, and their encodings."""
    if not data.is_file():
        raise InputError("there are no such records", where=data, fix="--data FILE, Alpaca's or others of their form")
    records = load_records(FileSource(data)).records
    found = [
        (record, encoding)
        for record, encoding in zip(records, encoder.encode(records, longest_tokens), strict=True)
        if not encoding.is_truncated
    ]
    if len(found) < count:
        what = f"{count} records are requested and {len(found)} have at most {longest_tokens} tokens"
        raise InputError(what, where=data, fix="fewer --steps, or a larger file")
    return [record for record, _ in found[:count]], [encoding for _, encoding in found[:count]]


def in_order(encodings: Sequence[Encoding], steps: Steps) -> list[dict[str, list[int]]]:
    """Each step's examples, one step after the other, with labels of -100 where there is no loss."""
    lengths = np.array([len(one.ids) for one in encodings], np.int64)
    targets = np.array([one.num_targets for one in encodings], np.int64)
    any_budget = int(lengths.sum())
    plan = StepPlan(lengths, targets, steps.examples, any_budget, 1, SEED)
    order = np.concatenate([plan.step_examples(index) for index in range(steps.num_steps)])
    return [{"input_ids": encodings[i].ids, "labels": _labels(encodings[i])} for i in order]


def _labels(encoding: Encoding) -> list[int]:
    labels = [-100] * len(encoding.ids)
    for start, stop in encoding.spans:
        labels[start:stop] = encoding.ids[start:stop]
    return labels


def shape_of(model: Path, row_tokens: int) -> Shape:
    """The sizes in a folder's configuration; positions are those of the rows."""
    config = _config(model)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    hidden, layers, heads, inner = (int(config[name]) for name in names)
    return Shape(hidden, layers, heads, inner, row_tokens)


def head_share_of(model: Path) -> float:
    """The output layer's share of the matrix products, counted in the model's file."""
    from math import prod

    from safetensors import safe_open

    with safe_open(model / "model.safetensors", "pt") as tensors:
        shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118 - not a dict
    matrices = sum(prod(shape) for name, shape in shapes.items() if len(shape) == 2 and ".layers." in name)
    config = _config(model)
    head = int(config["vocab_size"]) * int(config["hidden_size"])
    return head / (matrices + head)


def _config(model: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return found
