"""``transformers.Trainer`` on the same model and lengths, as a user would set it up on one GPU."""

from __future__ import annotations

import tempfile
import time
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments

from bench.gpu.case import Case
from bench.gpu.training import free_memory
from bench.gpu.workload import MAX_LENGTH, PAD_ID, SHAPES, make_model
from bench.results import versions
from galpaca.data.examples import EncodedExamples, labels_of
from galpaca.training.determinism import set_determinism

_WARM_UP_STEPS, _TIMED_STEPS = 2, 4
_EXAMPLES_PER_MICRO_BATCH = 16
_EXAMPLES_PER_STEP = 128
# Its largest micro-batch, for the arithmetic of memory: padded to the longest example, and logits of every token.
MICRO_BATCH = Case("padded", "1.3b", "bf16-mixed", max_tokens=_EXAMPLES_PER_MICRO_BATCH * MAX_LENGTH)


class _StepSeconds(TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def measure_trainer(shape: str, examples: EncodedExamples, device: torch.device) -> dict[str, Any]:
    """bf16, SDPA, fused AdamW (its default), 16 examples a micro-batch padded to the longest of them.

    In any order, as it trains unless it is told otherwise.
    """
    free_memory(device)
    set_determinism("gpu", deterministic=False)
    steps = _WARM_UP_STEPS + _TIMED_STEPS
    config = SHAPES[shape].config(dropout=0.1)
    config._attn_implementation = "sdpa"
    clock = _StepSeconds()
    # Steps in the order of the file, so that the tokens of each are known.
    count = steps * _EXAMPLES_PER_STEP
    order = np.arange(count) % len(examples)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=make_model(config, device),
            args=TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=_EXAMPLES_PER_MICRO_BATCH,
                gradient_accumulation_steps=_EXAMPLES_PER_STEP // _EXAMPLES_PER_MICRO_BATCH,
                learning_rate=2e-5,
                lr_scheduler_type="cosine",
                bf16=True,
                train_sampling_strategy="sequential",
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=[_labelled(examples, int(i)) for i in order],
            data_collator=DataCollatorForSeq2Seq(_padder(), padding=True),
            callbacks=[clock],
        )
        trainer.train()
    seconds = np.diff(clock.ends)[-_TIMED_STEPS:]
    step_tokens = examples.lengths[order].reshape(steps, -1).sum(axis=1)[-_TIMED_STEPS:]
    return {
        "name": "transformers.Trainer",
        "shape": shape,
        "precision": "bf16-mixed",
        "examples": _EXAMPLES_PER_STEP,
        "packages": versions(),
        "tokens_per_second": float(step_tokens.sum() / seconds.sum()),
        "step_seconds": float(median(seconds)),
        "step_seconds_mean": fmean(seconds),
        "step_seconds_deviation": stdev(seconds),
        "peak_memory_bytes": torch.cuda.max_memory_allocated(device),
        "mfu": None,
    }


def _labelled(examples: EncodedExamples, index: int) -> dict[str, list[int]]:
    ids = examples.ids(index).astype(int).tolist()
    return {"input_ids": ids, "labels": labels_of(examples, index), "attention_mask": [1] * len(ids)}


def _padder() -> PreTrainedTokenizerFast:
    """A tokenizer that is requested nothing but padding."""
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": PAD_ID}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
