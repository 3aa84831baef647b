"""A random Llama of seconds, with a tokenizer and a chat template of the real model's form, to try the phases with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.results import REPOSITORY

_DEMO = REPOSITORY / "src" / "galpaca" / "demo" / "records.json"
# In the order of the real model's ids.
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Of what is written: greater as soon as it becomes another folder.
VERSION = 2
_VOCABULARY = 512
_POSITIONS = 1024
_SEED = 0


def write_tiny_llama(folder: Path) -> None:
    """Writes a folder as ``bench.convert_gguf`` does, of a model that knows nothing."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(_SEED)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_tokenizer() -> Any:
    """Byte-level BPE learned from the demo's records, with the real model's special tokens and single digits."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    records = json.loads(_DEMO.read_text(encoding="utf-8"))
    inner = Tokenizer(models.BPE())
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([f"{one['instruction']} {one['output']}" for one in records], trainer)
    unknown, first, last = SPECIAL_TOKENS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=unknown, bos_token=first, eos_token=last, pad_token=last
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
