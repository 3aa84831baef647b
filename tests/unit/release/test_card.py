"""The model card says what is true of the model at hand, in a form that the Hub reads."""

from dataclasses import replace
from pathlib import Path

import hub_uploads as hub
from huggingface_hub import ModelCard

from galpaca.model.families.opt import OPT
from galpaca.release.card import CardFacts, model_card
from galpaca.release.citations import citations

FACTS = CardFacts(
    name="galpaca67b",
    family=OPT,
    model_path="ada/galpaca",
    base_model="facebook/galactica-6.7b",
    num_parameters=6_657_359_872,
    num_trained=6_657_359_872,
    dataset="tatsu-lab/alpaca",
    model_license="cc-by-nc-4.0",
    data_license="cc-by-nc-4.0",
    terms="A model tuned on them is also subject to the OpenAI terms of use.",
    recipe=[("learning rate", "2e-05")],
    receipt=[("fingerprint (SHA-256)", "ab" * 32)],
    results=[("steps 1 to 1,221", "4 processes, NVIDIA A100 80GB: 2.00 h")],
    splits_sequences=True,
    methods="It was tuned on 52,002 records.",
    citations=citations(
        "facebook/galactica-6.7b", "tatsu-lab/alpaca", ["alpaca"], "all parameters", splits_sequences=True
    ),
)


def test_a_galpaca(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(model_card(FACTS), encoding="utf-8")
    card = ModelCard.load(path)
    assert card.data.to_dict() == {
        "license": "cc-by-nc-4.0",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["opt", "galactica", "instruction-tuning", "galpaca"],
        "language": ["en"],
        "base_model": "facebook/galactica-6.7b",
        "datasets": ["tatsu-lab/alpaca"],
    }
    assert hub.validate(str(card)) == (200, {"errors": [], "warnings": []})
    for said in (
        "6,657,359,872 parameters",
        "106 billion tokens of open-access scientific text",
        "https://github.com/paperswithcode/galai",
        "https://arxiv.org/abs/2211.09085",
        "text-davinci-003",
        "https://huggingface.co/datasets/tatsu-lab/alpaca",
        "https://github.com/tatsu-lab/stanford_alpaca",
        "[CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/)",
        "subject to the OpenAI terms of use. ([terms](https://openai.com/policies/))",
        "invents citations",
        "not for medical",
        "biases",
        "English",
        "forbids commercial use",
        "@article{GALACTICA,",
        "@misc{alpaca,",
        "It was tuned on 52,002 records.",
        "4 processes, NVIDIA A100 80GB: 2.00 h",
        "ab" * 32,
    ):
        assert said in card.text, said


def test_a_model_of_ones_own_claims_nothing_of_them() -> None:
    """Random weights and a local file: neither GALACTICA's origin nor OpenAI's terms, and no Hub names."""
    facts = replace(
        FACTS, base_model=None, dataset="mine.jsonl", model_license=None, data_license="apache-2.0", terms=None
    )
    card = ModelCard(model_card(facts))
    metadata = card.data.to_dict()
    assert metadata["license"] == "other"
    assert not {"base_model", "datasets", "language"} & metadata.keys()
    assert hub.validate(str(card))[0] == 200
    for unsaid in ("106 billion", "text-davinci-003", "OpenAI", "commercial", "English"):
        assert unsaid not in card.text
