"""``examples/flat_loop.py`` over PEFT's adapters, and bitsandbytes' 4-bit values: what the trainer is compared with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes.functional as bnb
import torch
from parity.flat_run import RECIPE
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.flat_loop import encode, train
from galpaca.model.folder_tensors import FolderTensors
from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.tensors import read_whole


def peft_model(
    model: Path,
    method: Lora,
    *,
    four_bits: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = RECIPE.seed,
) -> Any:
    """A model of PEFT's over a folder's, with the adapters that a run of the trainer starts from.

    Args:
        four_bits: matrices of linear layers have the values that bitsandbytes makes of them.
    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    if four_bits:
        for name, parameter in loaded.named_parameters():
            if name.endswith(".weight") and name.split(".")[-2] in method.family.linear_layers:
                codes, state = bnb.quantize_4bit(parameter.data, quant_type="nf4", blocksize=64)
                parameter.data = bnb.dequantize_4bit(codes, state).to(torch.float32)
    config = LoraConfig(
        r=method.rank, lora_alpha=int(method.alpha), lora_dropout=method.dropout, target_modules=list(method.layers)
    )
    adapted: Any = get_peft_model(loaded, config, autocast_adapter_dtype=False)
    first = method.starting_weights(FolderTensors(model, method.family, tied_head=True), seed)
    names = [
        name
        for name in method.shapes(FolderTensors(model, method.family, tied_head=True).shapes)
        if method.trained(name)
    ]
    set_peft_model_state_dict(adapted, {f"base_model.model.{name}": read_whole(first, name) for name in names})
    return adapted


def peft_run(
    model: Path, tokenizer: Path, records: Path, num_steps: int, method: Lora, *, lr: float, **how: Any
) -> tuple[list[dict[str, float]], Any]:
    """Loss, gradient norm and learning rate of each step, and the model as it is then.

    Args:
        how: as ``peft_model``.
    """
    reader: Any = AutoTokenizer.from_pretrained(tokenizer)
    content = json.loads(records.read_text(encoding="utf-8"))
    examples = [encode(record, reader, RECIPE.max_length) for record in content]
    adapted = peft_model(model, method, **how)
    return list(train(adapted, examples, replace(RECIPE, lr=lr), num_steps)), adapted
