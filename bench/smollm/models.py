"""The model before and after, as ``galpaca compare`` names models, and the losses and answers of each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.smollm.commands import galpaca
from bench.smollm.plan import Plan, Tuning
from galpaca.files.build_once import fresh_partial

BEFORE, BEFORE_ALPACA = "before", "before-in-alpaca"
# With the linear layers in NF4, as QLoRA has them: on prose only.
BEFORE_FOUR_BITS = "before-in-4-bits"
# What the template of a chat is written in, within a tokenizer's folder.
_CHAT_TEMPLATE = "chat_template.jinja"


def labelled(plan: Plan, tunings: Sequence[Tuning]) -> list[tuple[str, Path]]:
    """Label and place of each model; differences are to the first."""
    before = [(BEFORE, plan.base), (BEFORE_ALPACA, plan.without_template)]
    return [*before, *((tuning.name, plan.run_of(tuning) / "model") for tuning in tunings)]


def make_without_template(base: Path, folder: Path) -> None:
    """The same folder less its chat template: galpaca then asks in the template that it is given.

    Weights are linked, not copied.
    """
    if folder.exists():
        shutil.rmtree(folder)
    partial = fresh_partial(folder)
    for file in base.iterdir():
        if file.suffix == ".safetensors":
            os.link(file, partial / file.name)
        elif file.is_file() and file.name != _CHAT_TEMPLATE:
            shutil.copy(file, partial)
    partial.rename(folder)


def compare(name: str, models: Sequence[tuple[str, Path]], options: Sequence[str], plan: Plan) -> dict[str, Any]:
    """Runs ``galpaca compare``, which keeps what it has measured of each model, and reads its figures.

    Args:
        name: of its page below the root.
        options: prompts, records, lengths.

    Raises:
        GalpacaError: it failed.
    """
    pages = plan.root / "pages"
    pages.mkdir(parents=True, exist_ok=True)
    figures = pages / f"{name}.json"
    galpaca([
        "compare",
        *(f"{label}={path}" for label, path in models),
        "--template=alpaca",  # of the model that has none
        *options,
        f"--out={pages / name}.html",
        f"--json={figures}",
    ])  # fmt: skip
    found: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return found
