"""One peer in this interpreter: ``python -m bench.peers.contender NAME --workdir FOLDER`` writes its outcome there.

Peers are set up as their documentation says, in float32 and without dropout. The defaults of each stay where the
recipe says nothing, the optimizer's implementation among them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from bench.peers.outcome import Outcome
from bench.peers.workload import EXAMPLES_PER_MICRO_BATCH, SEED, Workload, load_workload

# Arguments that every peer has besides what differs from benchmark to benchmark: the recipe, and nothing that costs
# time beside training.
RECIPE: dict[str, Any] = {
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,  # below 1 it is a share of the steps
    "max_grad_norm": 1.0,
    "train_sampling_strategy": "sequential",  # the examples are in the plan's order
    "use_cpu": True,
    "dataloader_num_workers": 0,
    "save_strategy": "no",
    "eval_strategy": "no",
    "logging_steps": 1,
    "report_to": "none",
    "disable_tqdm": True,
}


class StepLog(TrainerCallback):
    """Times the optimizer steps and keeps their figures.

    A step lasts from the end of the one before to its own end: Trainer fetches a step's micro-batches before it says
    that the step begins.
    """

    def __init__(self) -> None:
        self.step_seconds: list[float] = []
        self.step_examples: list[int] = []
        self.losses: list[float] = []
        self.learning_rates: list[float] = []
        self._num_examples = 0
        self._clock: float | None = None

    def count(self, inputs: dict[str, Any]) -> None:
        """Adds a micro-batch's examples: rows, or where rows are packed, the tokens at position 0."""
        positions = inputs.get("position_ids")
        self._num_examples += len(inputs["input_ids"]) if positions is None else int((positions == 0).sum())

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self._clock is None:
            self._clock = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        assert self._clock is not None, "a step that has begun"
        now = time.perf_counter()
        self.step_seconds.append(now - self._clock)
        self.step_examples.append(self._num_examples)
        self._clock, self._num_examples = now, 0

    def on_log(self, *_: Any, **given: Any) -> None:
        logs: dict[str, float] = given["logs"]
        if "loss" in logs:
            self.losses.append(logs["loss"])
            self.learning_rates.append(logs["learning_rate"])


class CountingTrainer(Trainer):
    """``transformers.Trainer``, or one derived from it, that reports to the log what each micro-batch holds."""

    def __init__(self, *, step_log: StepLog, **kwargs: Any) -> None:
        self.step_log = step_log
        super().__init__(callbacks=[step_log], **kwargs)

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.step_log.count(inputs)
        return super().training_step(model, inputs, *args, **kwargs)


def recipe(workload: Workload) -> dict[str, Any]:
    """Arguments that every peer has."""
    return {
        **RECIPE,
        "output_dir": str(workload.path / "peer"),
        "max_steps": workload.num_steps,
        "per_device_train_batch_size": EXAMPLES_PER_MICRO_BATCH,
        "gradient_accumulation_steps": workload.step_examples // EXAMPLES_PER_MICRO_BATCH,
        "learning_rate": workload.lr,
        "seed": SEED,
    }


def load_model(workload: Workload) -> Any:
    how: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "sdpa"}
    return AutoModelForCausalLM.from_pretrained(workload.path / "model", **how)


def load_examples(workload: Workload) -> list[dict[str, list[int]]]:
    return json.loads((workload.path / "examples.json").read_text(encoding="utf-8"))


def trainer(workload: Workload, step_log: StepLog) -> Trainer:
    """Four examples a micro-batch, padded to the longest of them."""
    return _trainer(workload, step_log, padding=True)


def trainer_padded(workload: Workload, step_log: StepLog) -> Trainer:
    """Four examples a micro-batch, padded to the model's length."""
    return _trainer(workload, step_log, padding="max_length", max_length=workload.shape.positions)


def _trainer(workload: Workload, step_log: StepLog, **padding: Any) -> Trainer:
    return CountingTrainer(
        model=load_model(workload),
        args=TrainingArguments(**recipe(workload)),
        train_dataset=load_examples(workload),
        data_collator=DataCollatorForSeq2Seq(workload.hf_tokenizer(), **padding),
        step_log=step_log,
    )


def trl(workload: Workload, step_log: StepLog) -> Trainer:
    """SFTTrainer on examples that are encoded already, four a micro-batch and padded to the longest of them.

    Without Triton its loss is computed at every position, targets or not, along with the entropy that it logs.
    """
    return _sft_trainer(workload, step_log)


def trl_packed(workload: Workload, step_log: StepLog) -> Trainer:
    """SFTTrainer with its default packing: best-fit decreasing into rows of the model's length.

    TRL hands packed rows over without a mask, with positions that begin anew in each example and boundaries for
    FlashAttention, which a CPU has not. OPT makes nothing of them with sdpa: attention is causal over the whole row,
    and an example sees those before it.

    A micro-batch is as many rows, laid end to end, as the others' has examples (``--packed-rows`` changes it); with
    fewer rows attention costs less. Rows are shuffled as by default, since packing sorts them by length.
    """
    row_tokens = workload.shape.positions
    # Rounded down so that every step is full: a last step of few rows would still pay for a whole update.
    micro_batches = int(workload.step_examples * workload.mean_tokens / row_tokens / workload.packed_rows)
    return _sft_trainer(
        workload,
        step_log,
        packing=True,
        per_device_train_batch_size=workload.packed_rows,
        gradient_accumulation_steps=max(1, micro_batches),
        train_sampling_strategy="random",
    )


def _sft_trainer(workload: Workload, step_log: StepLog, **more: Any) -> Trainer:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class CountingSFTTrainer(CountingTrainer, SFTTrainer):
        """``trl.SFTTrainer``, counted."""

    sft = {
        "max_length": workload.shape.positions,
        "bf16": False,  # by default True
        "gradient_checkpointing": False,  # by default True, which computes every layer's forward twice
    }
    return CountingSFTTrainer(
        model=load_model(workload),
        args=SFTConfig(**{**recipe(workload), **sft, **more}),
        train_dataset=Dataset.from_list(load_examples(workload)),
        processing_class=workload.hf_tokenizer(),
        step_log=step_log,
    )


PEERS: dict[str, Callable[[Workload, StepLog], Trainer]] = {
    "trainer": trainer,
    "trainer_padded": trainer_padded,
    "trl": trl,
    "trl_packed": trl_packed,
}


def run(name: str, workload: Workload) -> Outcome:
    """Trains as this peer does."""
    log = StepLog()
    peer = PEERS[name](workload, log)
    peer.train()
    return Outcome(
        step_seconds=log.step_seconds,
        step_examples=log.step_examples,
        losses=log.losses,
        learning_rates=log.learning_rates,
        token_weighted=bool(peer.model_accepts_loss_kwargs),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(PEERS))
    parser.add_argument("--workdir", type=Path, required=True)
    given = parser.parse_args()
    run(given.name, load_workload(given.workdir)).save(given.workdir / f"{given.name}.json")


if __name__ == "__main__":
    main()
