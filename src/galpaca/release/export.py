"""The released folder: weights, configuration, tokenizer, generation settings, card."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import GenerationConfig

from galpaca.data.prompts import Template
from galpaca.data.tokenizer import Tokenizer
from galpaca.runs.folder import sync_folder

if TYPE_CHECKING:
    from transformers import OPTConfig

# What ``galpaca`` needs to ask the model as it was trained; ``transformers`` ignores the file.
PROMPT_FILE = "galpaca.json"


def export(
    state: Mapping[str, Tensor],
    config: OPTConfig,
    tokenizer: Tokenizer,
    template: Template,
    card: str,
    out: Path,
    *,
    dtype: torch.dtype,
    max_new_tokens: int,
) -> None:
    """Writes a Hugging Face folder, beside its place first and then by a rename.

    Args:
        state: all weights of ``OPTForCausalLM`` under their own names.
        config: the model's, as trained.
        card: text of README.md.
        out: the folder; one that is there is replaced.
        dtype: of the weights on disk.
        max_new_tokens: default length of an answer; without it ``generate`` stops after 20 tokens.
    """
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in state.items() if name not in tied}
    save_torch_state_dict(weights, partial)
    released = copy.deepcopy(config)
    released.architectures = ["OPTForCausalLM"]
    released.dtype = dtype
    released.save_pretrained(partial)
    GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.hf.bos_token_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    ).save_pretrained(partial)
    _save_tokenizer(tokenizer, partial)
    prompts = {"template": template.to_dict(), "splits_sequences": tokenizer.splits_sequences}
    (partial / PROMPT_FILE).write_text(json.dumps(prompts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (partial / "README.md").write_text(card, encoding="utf-8")
    sync_folder(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.hf.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("tokenizer_class") == "TokenizersBackend":
        content["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that transformers 4 knows too
    for key in ("is_local", "local_files_only"):  # how it was loaded is none of the reader's business
        content.pop(key, None)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
