"""What every contender trains: one model with random weights, and the same examples in the same steps."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.results import REPOSITORY
from galpaca.data.encoded_set import encode
from galpaca.data.encoding import RecordEncoder
from galpaca.data.examples import EncodedExamples, labels_of
from galpaca.data.plan import StepPlan
from galpaca.data.policies import EncodingPolicy
from galpaca.data.prompts import load_template
from galpaca.data.reading import load_records
from galpaca.data.records import Record, RecordSet
from galpaca.data.sources.files import FileSource
from galpaca.data.sources.table import Places
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.errors import InputError
from galpaca.estimate.flops import Architecture

TOKENIZER = REPOSITORY / "src" / "galpaca" / "demo" / "tokenizer"
TEMPLATE = "alpaca"
EXAMPLES_PER_STEP = 128
# Of the contenders that pad; an example of 500 tokens and three short ones then share 2,000 tokens at most.
EXAMPLES_PER_MICRO_BATCH = 4
# Longer examples are few, and would let the contender padded to the model's length look better than it is on Alpaca.
LONGEST_EXAMPLE_TOKENS = 200
LARGEST_HEAD_SHARE = 1 / 3
SEED = 42


@dataclass(frozen=True)
class Shape:
    """The model's sizes.

    Attributes:
        positions: tokens that the model takes at most; also what rows are padded or packed to.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    positions: int

    def head_share(self, vocab_size: int) -> float:
        """The output layer's share of the matrix products."""
        architecture = Architecture(self.num_layers, self.hidden_size, self.ffn_size, vocab_size)
        return vocab_size * self.hidden_size / architecture.matmul_parameters


@dataclass(frozen=True)
class Workload:
    """A folder with ``model/``, ``records.json`` and ``examples.json``, and how long to train on them.

    Attributes:
        folder: of the above; contenders write below it, too.
        num_steps: optimizer steps, the first of which is not timed.
        num_records: a multiple of
        step_examples: examples a step.
        max_tokens: galpaca's budget of a micro-batch.
        packed_rows: packed rows of a micro-batch of TRL's.
        mean_tokens: of an example.
        tokenizer: folder of one that galpaca knows; None takes the model's own.
        lr: learning rate.
    """

    folder: str
    shape: Shape
    num_steps: int
    num_records: int
    step_examples: int
    max_tokens: int
    packed_rows: int
    mean_tokens: float
    head_share: float
    tokenizer: str | None = str(TOKENIZER)
    template: str = TEMPLATE
    lr: float = 2e-5

    @property
    def path(self) -> Path:
        return Path(self.folder)

    def hf_tokenizer(self) -> Any:
        """For peers, which pad with it."""
        if self.tokenizer is not None:
            return load_tokenizer(self.tokenizer).hf
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.path / "model")

    def save(self) -> None:
        (self.path / "workload.json").write_text(json.dumps(asdict(self)), encoding="utf-8")


def load_workload(folder: Path) -> Workload:
    values = json.loads((folder / "workload.json").read_text(encoding="utf-8"))
    return Workload(**{**values, "shape": Shape(**values["shape"])})


def make_workload(
    folder: Path, data: Path, shape: Shape, *, num_records: int, num_steps: int, max_tokens: int, packed_rows: int
) -> Workload:
    """Chooses and encodes the records, orders them by galpaca's plan and makes the model.

    Raises:
        InputError: no such data, too few records, a head that outweighs the layers.
    """
    tokenizer = load_tokenizer(str(TOKENIZER))
    head_share = _checked_head_share(shape, tokenizer.vocab_size)
    step_examples = min(EXAMPLES_PER_STEP, num_records // EXAMPLES_PER_MICRO_BATCH * EXAMPLES_PER_MICRO_BATCH)
    num_records = num_records // step_examples * step_examples
    records = choose_records(data, tokenizer, num_records)
    examples = encode(
        RecordSet(str(data), records, Places.of(str(data), [None] * len(records)), {}),
        tokenizer,
        load_template(TEMPLATE),
        EncodingPolicy(LONGEST_EXAMPLE_TOKENS),
    )
    write_json(folder / "records.json", [record.turns[0]._asdict() for record in records])
    write_json(folder / "examples.json", in_plan_order(examples, step_examples, num_steps))
    _save_model(folder / "model", shape, tokenizer)
    mean_tokens = float(examples.lengths.mean())
    workload = Workload(
        str(folder), shape, num_steps, num_records, step_examples, max_tokens, packed_rows, mean_tokens, head_share
    )
    workload.save()
    return workload


def choose_records(data: Path, tokenizer: Tokenizer, count: int) -> list[Record]:
    """The first ``count`` records of the file whose whole example has at most ``LONGEST_EXAMPLE_TOKENS``."""
    if not data.is_file():
        raise InputError(
            "there are no such records", where=data, fix="--data FILE, Alpaca's records or others of their form"
        )
    records = load_records(FileSource(data)).records
    encodings = RecordEncoder(tokenizer, load_template(TEMPLATE)).encode(records, LONGEST_EXAMPLE_TOKENS)
    short = [r for r, e in zip(records, encodings, strict=True) if e.full_length <= LONGEST_EXAMPLE_TOKENS]
    if len(short) < count:
        raise InputError(
            f"{count} records are requested and {len(short)} have at most {LONGEST_EXAMPLE_TOKENS} tokens",
            where=data,
            fix=f"--records {len(short)}, or a larger file",
        )
    return short[:count]


def in_plan_order(
    examples: EncodedExamples, step_examples: int, num_steps: int, seed: int = SEED
) -> list[dict[str, list[int]]]:
    """Each step's examples, one step after the other, with labels of -100 where there is no loss."""
    any_budget = int(examples.lengths.sum())
    plan = StepPlan(examples.lengths, examples.num_targets, step_examples, any_budget, 1, seed)
    order = np.concatenate([plan.step_examples(index) for index in range(num_steps)])
    return [{"input_ids": examples.ids(i).tolist(), "labels": labels_of(examples, i)} for i in order]


def _checked_head_share(shape: Shape, vocab_size: int) -> float:
    share = shape.head_share(vocab_size)
    if share > LARGEST_HEAD_SHARE:
        raise InputError(
            f"the head has {share:.0%} of the matrix products, and at most {LARGEST_HEAD_SHARE:.0%} are accepted",
            where=f"--hidden-size {shape.hidden_size} --layers {shape.num_layers}",
            why="galpaca computes the head for target tokens only, so such a model would favour it",
            fix="a larger --hidden-size or more --layers",
        )
    return share


def _save_model(folder: Path, shape: Shape, tokenizer: Tokenizer) -> None:
    import torch
    from transformers import OPTConfig, OPTForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    config = OPTConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=shape.hidden_size,
        word_embed_proj_dim=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        ffn_dim=shape.ffn_size,
        max_position_embeddings=shape.positions,
        activation_function="gelu",
        # Contenders draw dropout in different orders: with any, losses could not be compared.
        dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=tokenizer.hf.bos_token_id,
        pad_token_id=tokenizer.pad_id,
        eos_token_id=tokenizer.eos_id,
    )
    OPTForCausalLM(config).save_pretrained(folder)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
