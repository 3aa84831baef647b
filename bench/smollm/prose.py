"""The loss of a model on plain prose, passage by passage: what tuning on instructions makes it forget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from galpaca.estimate.bootstrap import paired_bootstrap

if TYPE_CHECKING:
    from galpaca.inference.loading import Loaded


class PassageLoss(NamedTuple):
    """Of one passage, of every token but the first, which nothing stands before.

    Attributes:
        nll: sum, in nats.
        num_tokens: so many.
        num_bytes: of the whole passage in UTF-8.
    """

    nll: float
    num_tokens: int
    num_bytes: int


def read_passages(file: Path) -> list[str]:
    """The paragraphs of a Markdown file, without its heading and the note on its origin."""
    paragraphs = file.read_text(encoding="utf-8").strip().split("\n\n")
    return [" ".join(one.split()) for one in paragraphs[2:]]


def passage_losses(loaded: Loaded, passages: Sequence[str]) -> list[PassageLoss]:
    """As plain text: without a template and without special tokens."""
    import torch
    from torch.nn.functional import cross_entropy

    found = []
    with torch.inference_mode():
        for passage in passages:
            ids = torch.tensor([loaded.tokenizer.hf(passage, add_special_tokens=False).input_ids])  # type: ignore[attr-defined]
            logits = loaded.model(input_ids=ids.to(loaded.model.device), use_cache=False).logits[0, :-1].float().cpu()
            nll = float(cross_entropy(logits, ids[0, 1:], reduction="sum"))
            found.append(PassageLoss(nll, ids.shape[1] - 1, len(passage.encode())))
    return found


def compared(losses: Sequence[Sequence[PassageLoss]]) -> list[dict[str, Any]]:
    """Of each model nats per token with its interval over passages, and the difference to the first model's."""
    found = paired_bootstrap([[p.nll for p in one] for one in losses], [[p.num_tokens for p in one] for one in losses])
    assert found is not None, "there are passages"
    rows = []
    for number, (mean, difference) in enumerate(zip(found.means, found.differences, strict=True)):
        row: dict[str, Any] = {"nats_per_token": asdict(mean), "tokens": sum(p.num_tokens for p in losses[number])}
        rows.append({**row, "difference": {**asdict(difference), "sign": difference.sign}} if number else row)
    return rows
