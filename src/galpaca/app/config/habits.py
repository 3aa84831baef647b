"""What people type out of habit from other training scripts, with the keys that it is called here."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from galpaca.app.config.schema import config_folder
from galpaca.errors import Problems

# Names of transformers' Trainer, TRL, PEFT, axolotl and Alpaca's own script. ``{}`` is the value.
HABITS: Mapping[str, str] = {
    "learning_rate": "optim.lr={}",
    "lr": "optim.lr={}",
    "weight_decay": "optim.weight_decay={}",
    "lr_scheduler_type": "optim.schedule={}",
    "lr_scheduler": "optim.schedule={}",
    "warmup_ratio": "optim.warmup_ratio={}",
    "warmup_steps": "optim.warmup_ratio=FRACTION of all steps",
    "max_grad_norm": "optim.clip_norm={}",
    "gradient_clip_val": "optim.clip_norm={}",
    "gradient_clipping": "optim.clip_norm={}",
    "adam_beta1": "optim.beta1={}",
    "adam_beta2": "optim.beta2={}",
    "per_device_train_batch_size": "batch.examples=N, of a step over all GPUs; batch.max_tokens=N limits memory",
    "per_device_batch_size": "batch.examples=N, of a step over all GPUs; batch.max_tokens=N limits memory",
    "train_batch_size": "batch.examples={}, of a step over all GPUs",
    "batch_size": "batch.examples={}, of a step over all GPUs",
    "micro_batch_size": "batch.max_tokens=N: micro-batches have a budget of tokens, which changes no result",
    "gradient_accumulation_steps": "batch.examples=N, of a step over all GPUs: micro-batches are planned from it",
    "num_train_epochs": "trainer.max_epochs={}",
    "num_epochs": "trainer.max_epochs={}",
    "epochs": "trainer.max_epochs={}",
    "max_epochs": "trainer.max_epochs={}",
    "max_steps": "trainer.max_steps={}",
    "early_stopping_patience": "trainer.early_stopping_patience={}, in validations",
    "patience": "trainer.early_stopping_patience={}, in validations",
    "early_stopping": "trainer.early_stopping_patience=N, in validations",
    "load_best_model_at_end": "release.checkpoint=best checkpoint.keep_best=true",
    "eval_steps": "trainer.val_every_steps={}",
    "evaluation_strategy": "trainer.val_every_steps=N, and data.val_fraction=0.05 for records to validate on",
    "eval_strategy": "trainer.val_every_steps=N, and data.val_fraction=0.05 for records to validate on",
    "logging_steps": "leave it out: metrics.jsonl has every step",
    "save_steps": "checkpoint.every_steps={}",
    "save_strategy": "checkpoint.every_steps=N, or checkpoint.every_epoch=true",
    "save_total_limit": "checkpoint.keep_last={}",
    "resume_from_checkpoint": "leave it out: the same command resumes from the newest checkpoint",
    "output_dir": "run.root=FOLDER run.name=NAME",
    "overwrite_output_dir": "run.name=ANOTHER",
    "run_name": "run.name={}",
    "report_to": "logger={}",
    "model_max_length": "data.max_length={}",
    "max_seq_length": "data.max_length={}",
    "max_seq_len": "data.max_length={}",
    "max_length": "data.max_length={}",
    "cutoff_len": "data.max_length={}",
    "sequence_len": "data.max_length={}",
    "block_size": "data.max_length={}",
    "model_name_or_path": "model.path={}",
    "model_name": "model.path={}",
    "base_model": "model.path={}",
    "pretrained_model_name_or_path": "model.path={}",
    "tokenizer_name": "model.tokenizer={}",
    "tokenizer_name_or_path": "model.tokenizer={}",
    "data_path": "data=local data.path={}",
    "data_file": "data=local data.path={}",
    "train_file": "data=local data.path={}",
    "dataset_path": "data=local data.path={}",
    "dataset": "data=local data.path=FILE, or data.hub_id=OWNER/NAME",
    "dataset_name": "data.hub_id={}",
    "validation_file": "data.val_path={}",
    "val_set_size": "data.val_fraction=FRACTION",
    "val_size": "data.val_fraction=FRACTION",
    "validation_split_percentage": "data.val_fraction=FRACTION",
    "fp16": "precision=16-mixed",
    "bf16": "precision=bf16-mixed",
    "tf32": "leave it out: precision=bf16-mixed or 16-mixed is faster",
    "mixed_precision": "precision=bf16-mixed or precision=16-mixed",
    "torch_compile": "compute.compile=true",
    "gradient_checkpointing": "compute.activation_checkpointing=full",
    "deepspeed": "strategy=fsdp",
    "fsdp": "strategy=fsdp",
    "ddp": "strategy=ddp",
    "num_gpus": "trainer.devices={}",
    "num_processes": "trainer.devices={}",
    "nproc_per_node": "trainer.devices={}",
    "gpus": "trainer.devices={}",
    "devices": "trainer.devices={}",
    "num_nodes": "trainer.num_nodes={}",
    "dataloader_num_workers": "trainer.data_workers={}",
    "use_lora": "tuning=lora",
    "use_peft": "tuning=lora",
    "lora": "tuning=lora",
    "qlora": "tuning=qlora",
    "load_in_4bit": "tuning=qlora",
    "lora_r": "tuning=lora tuning.rank={}",
    "lora_alpha": "tuning=lora tuning.alpha={}",
    "lora_dropout": "tuning=lora tuning.dropout={}",
    "lora_target_modules": "tuning=lora tuning.targets=NAMES",
}
MULTIRUN = ("--multirun", "-m")
# Flags of Hydra that the command takes, those with a value first.
_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd")
_FLAGS = (
    *_WITH_VALUE,
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", *MULTIRUN),
    *("--shell-completion", "-sc", "--info", "-i", "--experimental-rerun"),
)
_FORM = "write KEY=VALUE, without dashes"


def fix_of_habit(key: str, value: object) -> str:
    """What to type instead of a name that other scripts have; empty for a name that none of them has."""
    says = HABITS.get(re.sub(r"\W", "_", key.rpartition(".")[2].lower()), "")
    return says.format(value) if not says or says.startswith("leave it out") else f"it is called {says.format(value)}"


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuses what is neither an override nor a flag: Hydra would guess, or complain about its grammar.

    Raises:
        InputError: all such arguments at once.
    """
    problems, number = Problems(), 0
    while number < len(arguments):
        word, number = arguments[number], number + 1
        name, _, value = word.partition("=")
        if name in _WITH_VALUE and not value:
            number += 1
        elif name.startswith("-") and name not in _FLAGS:
            given = value
            if not given and number < len(arguments) and not re.match(r"[-+~]|[\w./@]+=", arguments[number]):
                given, number = arguments[number], number + 1
            problems.add("no such flag", where=name, fix=_fix_of_flag(name.lstrip("-").replace("-", "_"), given))
        elif "=" not in word and not word.startswith(("~", "-")):
            problems.add("neither KEY=VALUE nor a flag", where=word, fix=_fix_of_word(word))
    problems.raise_any()


def _fix_of_flag(name: str, value: str) -> str:
    if name == "experiment":
        return f"+experiment={value or 'NAME'}"
    return fix_of_habit(name, value or "VALUE") or f"{_FORM}; python train.py --cfg job shows all keys"


def _fix_of_word(word: str) -> str:
    for group in sorted(path.name for path in Path(config_folder()).iterdir() if path.is_dir()):
        if (Path(config_folder()) / group / f"{word}.yaml").is_file():
            return f"{'+' if group == 'experiment' else ''}{group}={word}"
    return f"{_FORM}; an experiment is chosen with +experiment=NAME"
