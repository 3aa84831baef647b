"""The works that a model owes a citation, in BibTeX."""

from collections.abc import Collection, Mapping
from importlib import resources


def citations(base: str, dataset: str, templates: Collection[str], tuning: str, *, splits_sequences: bool) -> str:
    """The entries of what a model was made with; galpaca comes last.

    Args:
        base: name of the model that it started from; empty for random weights.
        dataset: names of the data sets.
        templates: names of the prompt templates.
        tuning: how it was tuned, in words.
        splits_sequences: molecules and proteins go in one token a character, which is GALACTICA's way.
    """
    entries = _entries()
    owed = {
        "GALACTICA": "galactica" in base.lower() or splits_sequences,
        "smollm2": "smollm2" in base.lower(),
        "llama3": "llama-3" in base.lower(),
        "alpaca": "alpaca" in dataset.lower() or "alpaca" in templates,
        "wizardlm": "evol_instruct" in dataset.lower(),
        "lora": "lora" in tuning.lower(),
        "qlora": "qlora" in tuning.lower() or "nf4" in tuning.lower(),
        "galpaca": True,
    }
    return "\n\n".join(entries[key] for key, is_owed in owed.items() if is_owed)


def _entries() -> Mapping[str, str]:
    text = (resources.files("galpaca.release") / "assets" / "citations.bib").read_text(encoding="utf-8")
    parts = [part.strip() for part in text.split("\n\n")]
    return {part.partition("{")[2].partition(",")[0]: part for part in parts}
