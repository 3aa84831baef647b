"""Small tokenizers with chat templates in the styles of models that people tune."""

from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from galpaca.data.tokenizer import Tokenizer, load_tokenizer

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>' + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
# The answer begins with a space, and another stands ahead of its end.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# Its tokens swallow the blanks behind them.
PHI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# Earlier answers lose their reasoning, and the last one has some, if it is empty.
QWEN3 = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ message['content'].split('</think>')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# All answers do, the last one too.
DEEPSEEK = QWEN3.replace("{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}", "")

# Each with the token that ends an answer, whether there may be a system message, and the ``eos_token``.
STYLES = {
    "chatml": (CHATML, "<|im_end|>", True, "<|im_end|>"),
    "llama3": (LLAMA3, "<|eot_id|>", True, "<|end_of_text|>"),
    "mistral": (MISTRAL, "</s>", False, "</s>"),
    "gemma": (GEMMA, "<end_of_turn>", False, "<eos>"),
    "phi": (PHI, "<|end|>", True, "<eos>"),
}
SWALLOWING = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
NAMES = (
    *("<s>", "</s>", "<eos>", "<|im_start|>", "<|im_end|>", "<|end_of_text|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"),
    *SWALLOWING,
)


def save_chat_tokenizer(folder: Path, template: str | None, eos: str = "<|im_end|>", metaspace: bool = False) -> Path:
    """A tokenizer of bytes and a few merges that puts ``<s>`` in front of a text, as Llama's do.

    Args:
        metaspace: blanks are marks in front of words, as in Mistral's: a text's first word has one, too.
    """
    alphabet = sorted({*pre_tokenizers.ByteLevel.alphabet(), "▁", "\n"})
    merges = [("h", "e"), ("Ġ", "t"), ("Ċ", "Ċ"), ("▁", "t"), ("\n", "\n")]
    names = [*NAMES, *alphabet, *(first + second for first, second in merges)]
    backend = Backend(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges))
    backend.add_special_tokens([AddedToken(name, rstrip=name in SWALLOWING) for name in NAMES])
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        backend.decoder = decoders.Metaspace(prepend_scheme="first")
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token=eos)
    hf.chat_template = template
    hf.save_pretrained(folder)
    return folder


def chat_tokenizer(folder: Path, style: str) -> Tokenizer:
    """A tokenizer with a template of this style."""
    template, _, _, eos = STYLES[style]
    return load_tokenizer(str(save_chat_tokenizer(folder, template, eos, metaspace=style == "mistral")))
