"""The loss of a model on records, record by record, as training counts it: on target tokens only."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from galpaca.data.encoding import Encoding
from galpaca.data.records import Record
from galpaca.errors import GalpacaError
from galpaca.inference.loading import Loaded
from galpaca.model.tensors import dtype_name

# Of a forward pass, padding included: their logits take 0.4 GB in 16 bits with GALACTICA's vocabulary.
BATCH_TOKENS = 4_096


class RecordLoss(NamedTuple):
    """The loss of a model on one record.

    Attributes:
        nll: negative log-likelihood, summed over the target tokens, in nats.
        num_targets: target tokens, the end of the answer among them.
        is_truncated: whether it was truncated.
    """

    nll: float
    num_targets: int
    is_truncated: bool


def record_losses(
    loaded: Loaded,
    records: Sequence[Record],
    *,
    max_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int], None] = lambda _: None,
) -> list[RecordLoss]:
    """The loss of each record, encoded as for training, with the model's own tokenizer and template.

    Args:
        max_length: records are truncated to this many tokens, and to the model's context length.
        batch_tokens: most tokens of a forward pass, unless a single record has more.
        progress: called with the number of records done so far.

    Raises:
        GalpacaError: the GPU's memory does not hold a single record, or losses are not finite.
    """
    limit = min([limit for limit in (max_length, loaded.positions) if limit is not None], default=2**31)
    encodings = list(loaded.encoder.encode(records, limit))
    found: dict[int, float] = {}
    for indices in _batches(encodings, batch_tokens):
        found.update(zip(indices, _sums(loaded, [encodings[i] for i in indices]), strict=True))
        progress(len(found))
    if bad := sum(not math.isfinite(nll) for nll in found.values()):
        raise GalpacaError(
            f"{bad:,} of {len(found):,} records have no finite loss in {dtype_name(loaded.model.dtype)}",
            where=loaded.name,
            why="values overflow in this dtype, or weights are not finite",
            fix="--dtype bfloat16, or float32",
        )
    return [RecordLoss(found[i], one.num_targets, one.is_truncated) for i, one in enumerate(encodings)]


def _batches(encodings: Sequence[Encoding], batch_tokens: int) -> Iterator[list[int]]:
    """Records of like length together, the longest first."""
    batch: list[int] = []
    for index in sorted(range(len(encodings)), key=lambda i: (-len(encodings[i].ids), i)):
        longest = len(encodings[(batch or [index])[0]].ids)
        if batch and longest * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _sums(loaded: Loaded, encodings: Sequence[Encoding]) -> list[float]:
    try:
        return _forward(loaded, encodings)
    except torch.OutOfMemoryError:
        if len(encodings) == 1:
            raise GalpacaError(
                f"GPU out of memory for a record of {len(encodings[0].ids):,} tokens",
                where=loaded.name,
                fix="--dtype bfloat16, or a smaller --max-length",
            ) from None
    half = len(encodings) // 2
    return _sums(loaded, encodings[:half]) + _sums(loaded, encodings[half:])


@torch.inference_mode()
def _forward(loaded: Loaded, encodings: Sequence[Encoding]) -> list[float]:
    longest = max(len(one.ids) for one in encodings)
    ids = torch.full((len(encodings), longest), loaded.tokenizer.pad_id)
    lengths = torch.tensor([len(one.ids) for one in encodings])
    for row, one in enumerate(encodings):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
    mask = (torch.arange(longest) < lengths[:, None]).long()
    device = loaded.model.device
    logits = loaded.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
    sums = []
    for row, one in enumerate(encodings):
        places = torch.tensor([place for start, stop in one.spans for place in range(start, stop)], dtype=torch.int64)
        targets = ids[row, places].to(logits.device)
        wide = logits[row, (places - 1).to(logits.device)].float()
        sums.append(cross_entropy(wide, targets, reduction="sum").double() if len(targets) else logits.new_zeros(()))
    return [float(value) for value in torch.stack([value.double() for value in sums]).tolist()]
