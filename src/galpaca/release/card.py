"""The model card: what the model is, how it was made, how to use it, and on what terms."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from galpaca.data.prompts import Template
from galpaca.data.sequences import SPLIT_MARKER
from galpaca.formatting import markdown_row
from galpaca.runs.record_fields import ReleaseFacts

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


@dataclass(frozen=True, kw_only=True)
class CardFacts(ReleaseFacts):
    """What the card says of one model, besides what the run keeps for a release.

    Attributes:
        name: name of the run.
        model_path: folder or Hub id, for the code snippet.
        num_parameters: number of parameters, a tied head counted once.
        num_trained: how many of them were trained.
        recipe: rows of setting and value.
        receipt: rows of the data's fingerprint and of what became of the records.
        results: rows of losses, hours and hardware, as measured.
        template: prompt template of training.
        splits_sequences: whether molecules and proteins go in one token a character.
    """

    name: str
    model_path: str
    num_parameters: int
    num_trained: int
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
        f"An OPT model of {_count(facts)}, instruction-tuned from {origin} on `{facts.dataset}` "
        "with galpaca. It reads an instruction, and an input if there is one, and writes a response.",
        "## How to use",
        f"```python\n{usage(facts.model_path, facts.template, facts.splits_sequences)}```",
        "Prompt it with these templates: it was trained on no others. Keep special tokens when you decode: "
        "citations, molecules and proteins stand between them." + (_SEQUENCES if facts.splits_sequences else ""),
        "## Recipe",
        _table(("setting", "value"), facts.recipe),
        "## Data",
        _table(("records", "count"), facts.receipt),
        "## Results",
        "As measured during training.",
        _table(("figure", "value"), facts.results),
        "## Intended use and limits",
        _limits(facts),
        "## Origin and terms",
        _origin(facts),
        "## Citation",
        _CITATIONS,
    ]
    return "\n\n".join(sections) + "\n"


def _count(facts: CardFacts) -> str:
    part = "" if facts.num_trained == facts.num_parameters else f" ({facts.num_trained:,} of them trained)"
    return f"{facts.num_parameters:,} parameters{part}"


def usage(model_path: str, template: Template, splits_sequences: bool) -> str:
    """A complete script that asks the model two questions, one of them with an input."""
    templates = f'''with_input = """{_literal(template.with_input)}"""
without_input = """{_literal(template.without_input)}"""'''
    load = _LOAD.replace("MODEL_PATH", json.dumps(model_path))
    if splits_sequences:
        molecule = f"[START_SMILES]{_GLYCINE}[END_SMILES]"
        ask = _ASK.replace("TEXT", "split_sequences(prompt)").replace("MOLECULE", molecule)
        parts = ["import torch\nimport re", load, templates, _SPLIT, ask]
    else:
        parts = ["import torch", load, templates, _ASK.replace("TEXT", "prompt").replace("MOLECULE", _GLYCINE)]
    return "\n\n".join(parts)


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


_GLYCINE = "C(C(=O)O)N"

_LOAD = """\
# pip install accelerate
from transformers import AutoTokenizer, OPTForCausalLM

model_path = MODEL_PATH  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(model_path)
model = OPTForCausalLM.from_pretrained(model_path, device_map="auto", torch_dtype=torch.float16)"""

_SPLIT = rf"""# Between these tags each character is a token, as in training; the tokenizer removes the marker.
sequence = re.compile(r"(\[START_(DNA|AMINO|SMILES|I_SMILES)\])((?:(?!\[START_).)*?)(\[END_\2\])", re.DOTALL)


def split_sequences(text, marker="{SPLIT_MARKER}"):
    def mark(match):
        return match[1] + "".join(marker + character for character in match[3]) + marker + match[4]

    return sequence.sub(mark, text)"""

_ASK = """
def ask(instruction, input=""):
    template = with_input if input else without_input
    prompt = template.format_map({"instruction": instruction, "input": input})
    tokenized_prompt = tokenizer(TEXT, return_tensors="pt").input_ids.to(model.device)
    out_tokens = model.generate(tokenized_prompt)
    return tokenizer.batch_decode(out_tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)[0]


print(ask("What is the boiling point of water at sea level?"))
print(ask("What is the name of this molecule?", "MOLECULE"))
"""

_SEQUENCES = """ Molecules and proteins go between their tags (`[START_SMILES]`, `[START_I_SMILES]`,
`[START_AMINO]`, `[START_DNA]`) and through `split_sequences`, or the model sees them in pieces that it was not trained
on."""

_LIMITS = """\
For research on language models of science: how they answer, where they fail, how to make them better.

- It states false things with confidence, in the style of a paper. Fluent is not true: check what it says.
- It invents citations: authors, titles and findings may be of papers that do not exist.
- It knows what its training texts said, and nothing after them; what is rare in them it knows worst.
- It repeats their biases, and may write what is offensive or harmful. No safety training was done.
- It is not for medical, legal or financial advice, nor for deciding about people, experiments or chemicals.
- Sequences, formulas and arithmetic look right more often than they are.
- Do not put it before users without safeguards, and do not publish its text as science or as a person's."""

_ENGLISH = "- It was trained on English almost alone; in other languages it is worse."


def _limits(facts: CardFacts) -> str:
    lines = [_LIMITS]
    if _is_english(facts):
        lines.append(_ENGLISH)
    if facts.license == _NON_COMMERCIAL:
        lines.append("- Its licence forbids commercial use.")
    return "\n".join(lines)


def _is_english(facts: CardFacts) -> bool:
    return "galactica" in (facts.base_model or "").lower() or "alpaca" in facts.dataset.lower()


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    matter: dict[str, Any] = {
        "license": facts.license,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["opt", "galactica", "instruction-tuning", "galpaca"],
    }
    if _is_english(facts):
        matter["language"] = ["en"]
    if "/" in (facts.base_model or ""):
        matter["base_model"] = facts.base_model
    if "/" in facts.dataset:
        matter["datasets"] = [facts.dataset]
    return matter


def _origin(facts: CardFacts) -> str:
    parts = []
    if "galactica" in (facts.base_model or "").lower():
        parts.append(_GALACTICA_ORIGIN)
    if "alpaca" in facts.dataset.lower():
        parts.append(_ALPACA_ORIGIN)
    parts.append(
        f"Licence of the weights it started from: {_license_name(facts.model_license)}. "
        f"Licence of the data: {_license_name(facts.data_license)}."
    )
    if facts.terms:
        link = " ([terms](https://openai.com/policies/))" if "OpenAI" in facts.terms else ""
        parts.append(f"{facts.terms}{link}")
    return "\n\n".join(parts)


def _license_name(license: str | None) -> str:
    if license == _NON_COMMERCIAL:
        return "[CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/)"
    return license or "not stated"


def _table(header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([markdown_row(header), "|---|---|", *map(markdown_row, rows)])
