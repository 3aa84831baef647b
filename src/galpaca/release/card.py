"""The model card: what the model is, how it was made, how to use it, and on what terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from galpaca.data.prompts import Template

_NON_COMMERCIAL = "cc-by-nc-4.0"

_GALACTICA_ORIGIN = """\
The weights come from GALACTICA, which Meta AI trained on 106 billion tokens of open-access scientific text and data
([card](https://github.com/paperswithcode/galai/blob/main/docs/model_card.md),
[paper](https://arxiv.org/abs/2211.09085))."""

_ALPACA_ORIGIN = """\
The records are Stanford Alpaca's, written by OpenAI's text-davinci-003
([card](https://huggingface.co/datasets/tatsu-lab/alpaca),
[project](https://github.com/tatsu-lab/stanford_alpaca))."""

_CITATIONS = """\
```bibtex
@article{GALACTICA,
  title  = {GALACTICA: A Large Language Model for Science},
  author = {Ross Taylor and Marcin Kardas and Guillem Cucurull and Thomas Scialom and Anthony Hartshorn and
            Elvis Saravia and Andrew Poulton and Viktor Kerkez and Robert Stojnic},
  journal = {arXiv preprint arXiv:2211.09085},
  year   = {2022}
}
@misc{alpaca,
  title  = {Stanford Alpaca: An Instruction-following LLaMA model},
  author = {Rohan Taori and Ishaan Gulrajani and Tianyi Zhang and Yann Dubois and Xuechen Li and
            Carlos Guestrin and Percy Liang and Tatsunori B. Hashimoto},
  howpublished = {\\url{https://github.com/tatsu-lab/stanford_alpaca}},
  year   = {2023}
}
```"""


@dataclass(frozen=True)
class CardFacts:
    """What the card tells of one model.

    Attributes:
        name: of the run.
        model_path: where the folder stands, for the snippet.
        base_model: Hub id or folder of the weights it began from, or None for random weights.
        num_parameters: with tied head counted once.
        dataset: name of the data.
        model_license, data_license: where known.
        terms: further terms of the data.
        recipe: rows of setting and value.
        receipt: rows of what became of the records.
        results: rows of losses, hours and hardware, as measured.
        template: how it was asked in training.
        splits_sequences: whether molecules and proteins go in one token a character.
    """

    name: str
    model_path: str
    base_model: str | None
    num_parameters: int
    dataset: str
    model_license: str | None
    data_license: str | None
    terms: str | None
    recipe: Sequence[tuple[str, str]]
    receipt: Sequence[tuple[str, str]]
    results: Sequence[tuple[str, str]]
    template: Template
    splits_sequences: bool

    @property
    def license(self) -> str:
        """The stricter of the two, as the Hub names it; ``other`` where one is not known."""
        licenses = {self.model_license, self.data_license}
        if _NON_COMMERCIAL in licenses:
            return _NON_COMMERCIAL
        return licenses.pop() or "other" if len(licenses) == 1 else "other"


def model_card(facts: CardFacts) -> str:
    """The text of README.md, with the front matter that the Hub reads."""
    origin = f"`{facts.base_model}`" if facts.base_model else "random weights"
    sections = [
        f"---\n{yaml.safe_dump(_front_matter(facts), sort_keys=False)}---",
        f"# {facts.name}",
        f"An OPT model of {facts.num_parameters:,} parameters, instruction-tuned from {origin} on {facts.dataset} "
        "with galpaca.",
        "## How to use",
        f"```python\n{usage(facts.model_path, facts.template)}```",
        *([_SEQUENCES] if facts.splits_sequences else []),
        "## Recipe",
        _table(("setting", "value"), facts.recipe),
        "## Data",
        _table(("records", "count"), facts.receipt),
        "## Results",
        _table(("figure", "value"), facts.results),
        "## Intended use and limits",
        "For research on language models of science. The model states false things with confidence, invents "
        "references, and repeats the biases of what it was trained on. Check what it says before you rely on it, and "
        "do not put it before users without safeguards.",
        "## Origin and terms",
        _origin(facts),
        "## Citation",
        _CITATIONS,
    ]
    return "\n\n".join(sections) + "\n"


def usage(model_path: str, template: Template) -> str:
    """A complete script that asks the model one question."""
    prompt = template.without_input.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'''import torch
# pip install accelerate
from transformers import AutoTokenizer, OPTForCausalLM

model_path = "{model_path}"  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(model_path)
model = OPTForCausalLM.from_pretrained(model_path, device_map="auto", torch_dtype=torch.float16)

prompt_template = """{prompt}"""
instruction = "What is the boiling point of water at sea level?"
prompt = prompt_template.format_map({{"instruction": instruction}})

tokenized_prompt = tokenizer(prompt, return_tensors="pt").input_ids.to(model.device)
out_tokens = model.generate(tokenized_prompt)

print(tokenizer.batch_decode(out_tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)[0])
'''


_SEQUENCES = """\
Sequences between DNA, AMINO, SMILES and I_SMILES tags were trained one token a character. Mark them before you
tokenize, or the model sees them in pieces that it was not trained on:

```python
import re

def split_sequences(text, marker="SPL1T-TH1S-Pl3A5E"):
    def mark(match):
        return match[1] + "".join(marker + c for c in match[3]) + marker + match[4]
    return re.sub(r"(\\[START_(DNA|AMINO|SMILES|I_SMILES)\\])(.*?)(\\[END_\\2\\])", mark, text, flags=re.DOTALL)
```"""


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    matter: dict[str, Any] = {
        "license": facts.license,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["opt", "galactica", "instruction-tuning", "galpaca"],
    }
    if facts.base_model and not facts.base_model.startswith(("/", ".")):
        matter["base_model"] = facts.base_model
    if "/" in facts.dataset and "." not in facts.dataset:
        matter["datasets"] = [facts.dataset]
    return matter


def _origin(facts: CardFacts) -> str:
    parts = []
    if "galactica" in (facts.base_model or ""):
        parts.append(_GALACTICA_ORIGIN)
    if "alpaca" in facts.dataset:
        parts.append(_ALPACA_ORIGIN)
    parts.append(
        f"Licence of the weights it began from: {facts.model_license or 'not stated'}. "
        f"Licence of the data: {facts.data_license or 'not stated'}."
    )
    if facts.terms:
        parts.append(facts.terms)
    return "\n\n".join(parts)


def _table(header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|---|---|", *(line(row) for row in rows)])
