"""The model card: what the model is, how it was made, how to use it, and on what terms."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from galpaca.formatting import markdown_row
from galpaca.model.families.family import Family
from galpaca.runs.record_fields import ReleaseFacts

_NON_COMMERCIAL = "cc-by-nc-4.0"
# Those that ask for nothing which a stricter license beside them would not cover; None is one that is not stated.
_PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "unlicense", None)


@dataclass(frozen=True, kw_only=True)
class CardFacts(ReleaseFacts):
    """What the card says of one model, besides what the run keeps for a release.

    Attributes:
        name: name of the run.
        family: the model's.
        model_path: folder or Hub id, for the code snippet.
        num_parameters: number of parameters, a tied head counted once.
        num_trained: how many were trained: of them, or in adapters beside them.
        adapters: ``merged`` into the model's weights, ``alone`` in the folder, or None where there are none.
        recipe: rows of setting and value.
        receipt: rows of the data's fingerprint and of what became of the records.
        results: rows of losses, hours and hardware, as measured.
        splits_sequences: whether molecules and proteins go in one token a character.
        methods: a paragraph on how it was made.
        citations: BibTeX of the works that it owes.
        takes_input: whether its chat template takes an input of its own.
        end_ids: tokens that end an answer; an adapter's code snippet names them, since PEFT takes the base's.
    """

    name: str
    family: Family
    model_path: str
    num_parameters: int
    num_trained: int
    recipe: Sequence[tuple[str, str]]
    receipt: Sequence[tuple[str, str]]
    results: Sequence[tuple[str, str]]
    splits_sequences: bool
    adapters: Literal["merged", "alone"] | None = None
    methods: str = ""
    citations: str = ""
    takes_input: bool = True
    end_ids: Sequence[int] = ()

    @property
    def license(self) -> str:
        """The stricter of the two, as the Hub names it; ``other`` where one is not known, or both have terms."""
        licenses = {self.model_license, self.data_license}
        if _NON_COMMERCIAL in licenses and licenses <= {_NON_COMMERCIAL, *_PERMISSIVE}:
            return _NON_COMMERCIAL
        return licenses.pop() or "other" if len(licenses) == 1 else "other"


def model_card(facts: CardFacts) -> str:
    """The text of README.md, with the front matter that the Hub reads."""
    return _filled(
        "card.md",
        facts=facts,
        front_matter=yaml.safe_dump(_front_matter(facts), sort_keys=False),
        size=_size(facts),
        a_model=f"{'An' if facts.family.title[0] in 'AEIO' else 'A'} {facts.family.title} model",
        origin=f"`{facts.base_model}`" if facts.base_model else "random weights",
        usage=usage(
            facts.model_path,
            family=facts.family,
            splits_sequences=facts.splits_sequences,
            adapter_ends=facts.end_ids if facts.adapters == "alone" else None,
            takes_input=facts.takes_input,
            question=(facts.question, facts.question_input),
        ),
        table=_table,
        is_galactica=_is_galactica(facts),
        is_of_science=_is_galactica(facts) or facts.splits_sequences,
        is_alpaca=_is_alpaca(facts),
        license_name=_license_name,
        non_commercial=_NON_COMMERCIAL,
    )


def _size(facts: CardFacts) -> str:
    whole = f"{facts.num_parameters:,} parameters"
    if facts.adapters is not None:
        return f"{whole} with {facts.num_trained:,} in low-rank adapters"
    return whole if facts.num_trained == facts.num_parameters else f"{whole} ({facts.num_trained:,} of them trained)"


def usage(
    model_path: str,
    *,
    family: Family,
    splits_sequences: bool,
    adapter_ends: Sequence[int] | None = None,
    takes_input: bool = True,
    question: tuple[str | None, str | None] = (None, None),
) -> str:
    """A complete script that asks the model a question.

    Args:
        family: the model's.
        adapter_ends: of an adapter, the tokens that end an answer; None for a whole model, whose settings say so.
        takes_input: whether a message has its input under a key of its own, or below the instruction.
        question: instruction and input; where there are none, two of general science, one of them with an input.
    """
    given = [json.dumps(text, ensure_ascii=False) for text in question if text]
    return _filled(
        "usage.py.txt",
        model_path=json.dumps(model_path),
        class_name=family.class_name,
        half_dtype=family.half_dtype,
        splits_sequences=splits_sequences,
        is_adapter=adapter_ends is not None,
        adapter_ends=list(adapter_ends or ()),
        takes_input=takes_input,
        question=", ".join(given),
    )


def _filled(name: str, **values: Any) -> str:
    """A text of ``assets/`` with values in it."""
    import jinja2

    assets = jinja2.PackageLoader("galpaca.release", "assets")
    strict = jinja2.StrictUndefined
    environment = jinja2.Environment(
        loader=assets, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=strict
    )
    return environment.get_template(name).render(**values)


def _is_galactica(facts: CardFacts) -> bool:
    return "galactica" in (facts.base_model or "").lower()


def _is_alpaca(facts: CardFacts) -> bool:
    return "alpaca" in facts.dataset.lower()


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    matter: dict[str, Any] = {
        "license": facts.license,
        "library_name": "peft" if facts.adapters == "alone" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": [
            facts.family.model_type,
            *(["galactica"] if _is_galactica(facts) else []),
            *("instruction-tuning", "galpaca"),
            *(["lora"] if facts.adapters else []),
        ],
    }
    if _is_galactica(facts) or _is_alpaca(facts):
        matter["language"] = ["en"]
    if "/" in (facts.base_model or ""):
        matter["base_model"] = facts.base_model
        if facts.adapters == "alone":
            matter["base_model_relation"] = "adapter"
    if "/" in facts.dataset:
        matter["datasets"] = [facts.dataset]
    return matter


def _license_name(license: str | None) -> str:
    if license == _NON_COMMERCIAL:
        return "[CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/)"
    return license or "not stated"


def _table(header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([markdown_row(header), "|---|---|", *map(markdown_row, rows)])
