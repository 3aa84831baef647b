"""Several models by name, each with its own label."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from galpaca.errors import Problems
from galpaca.inference.places import find_model


class LabelledModel(NamedTuple):
    """A model and its label on the page."""

    label: str
    model: str


def labelled_models(given: Sequence[str], problems: Problems) -> list[LabelledModel]:
    """Parses ``MODEL`` or ``LABEL=MODEL``; errors are added to the problems.

    A run's model is labelled with the run's name, any other with the last part of its own name.
    """
    models = [_labelled(text) for text in given]
    for one in models:
        problems.collect(partial(find_model, one.model))
    for label in [label for label, count in Counter(one.label for one in models).items() if count > 1]:
        same = [one.model for one in models if one.label == label]
        problems.add(
            f"{len(same)} models have the label {label!r}: {' and '.join(same)}",
            where="MODEL",
            fix=f"give each a label: first={same[0]} second={same[1]}",
        )
    return models


def _labelled(text: str) -> LabelledModel:
    label, equals, model = text.partition("=")
    if equals and model and "/" not in label and not Path(text).exists():
        return LabelledModel(label.strip() or model, model)
    path = Path(text)
    is_of_a_run = path.name == "model" and (path.parent / "run.json").is_file()
    return LabelledModel((path.resolve().parent if is_of_a_run else path).name or path.resolve().name, text)
