"""PEFT's LoRA in this interpreter: ``python -m bench.adapters.contender --workdir FOLDER --seed N``.

As PEFT's documentation says, in a plain ``transformers.Trainer``: adapters on the layers that galpaca's have, and
micro-batches that are padded to their longest example. Ids, labels and the order of the examples are galpaca's.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, OPTForCausalLM, TrainingArguments, set_seed

from bench.adapters.workload import EXAMPLES_PER_STEP, LONGEST_EXAMPLE_TOKENS, PEFT, Workload, learning_rate
from bench.adapters.workload import load_workload as load
from bench.peers.contender import RECIPE, CountingTrainer, StepLog
from bench.peers.outcome import Outcome
from bench.peers.workload import TEMPLATE, in_plan_order
from galpaca.data.encoded_set import encode
from galpaca.data.policies import EncodingPolicy
from galpaca.data.prompts import load_template
from galpaca.data.reading import load_records
from galpaca.data.sources.files import FileSource
from galpaca.data.tokenizer import Tokenizer, load_tokenizer
from galpaca.model.tuning.lora import Lora


def train(workload: Workload, seed: int) -> Outcome:
    """Trains, and saves the merged model."""
    set_seed(seed)
    tokenizer, folder, log = load_tokenizer(str(workload.base)), workload.tuned(PEFT, seed), StepLog()
    adapted = adapted_model(workload.base)
    trainer = CountingTrainer(
        model=adapted,
        args=TrainingArguments(**arguments(workload, seed)),
        train_dataset=examples(workload, tokenizer, seed),
        data_collator=DataCollatorForSeq2Seq(tokenizer.hf, padding=True),
        step_log=log,
    )
    trainer.train()
    save_merged(adapted, workload.base, folder / "model")
    return Outcome(
        step_seconds=log.step_seconds,
        step_examples=log.step_examples,
        losses=log.losses,
        learning_rates=log.learning_rates,
        token_weighted=bool(trainer.model_accepts_loss_kwargs),
    )


def adapted_model(base: Path) -> Any:
    """The base with adapters of galpaca's default sizes."""
    model = OPTForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="sdpa")
    ours = Lora()
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=ours.rank,
        lora_alpha=int(ours.alpha),
        lora_dropout=ours.dropout,
        target_modules=list(ours.layers),
    )
    return get_peft_model(model, config)


def arguments(workload: Workload, seed: int) -> dict[str, Any]:
    return {
        **RECIPE,
        "output_dir": str(workload.tuned(PEFT, seed)),
        "max_steps": workload.num_steps,
        "per_device_train_batch_size": EXAMPLES_PER_STEP,
        "learning_rate": learning_rate(PEFT),
        "seed": seed,
    }


def examples(workload: Workload, tokenizer: Tokenizer, seed: int) -> list[dict[str, list[int]]]:
    """Those of all steps, one after the other, as a run of galpaca with this seed takes them."""
    records = load_records(FileSource(workload.path / "tuned.json"))
    encoded = encode(records, tokenizer, load_template(TEMPLATE), EncodingPolicy(LONGEST_EXAMPLE_TOKENS))
    return in_plan_order(encoded, EXAMPLES_PER_STEP, workload.num_steps, seed)


def save_merged(adapted: Any, base: Path, folder: Path) -> None:
    """Around the weights, the base's own files, so that both are read alike."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    adapted.merge_and_unload().save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    workload = load(given.workdir)
    train(workload, given.seed).save(workload.tuned(PEFT, given.seed) / "outcome.json")


if __name__ == "__main__":
    main()
