"""The loss of a micro-batch: summed over its target tokens, to be divided once for the whole step."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from galpaca.data.collate import IGNORED_ID, MicroBatch
from galpaca.model.attention import Boundaries


def target_logits(model: PreTrainedModel, examples: MicroBatch) -> Tensor:
    """(K, V) logits of the rows whose next token carries loss; the head runs on no other row.

    Args:
        model: model after ``prepare_layers``.
        examples: the micro-batch.
    """
    output = model(
        input_ids=examples.input_ids,
        position_ids=examples.position_ids,
        boundaries=Boundaries(examples.cu_seqlens, examples.lengths, examples.longest_tokens),
        target_rows=examples.target_rows,
        use_cache=False,
    )
    return output.logits.squeeze(0)


def nll_sum(model: PreTrainedModel, examples: MicroBatch) -> Tensor:
    """Scalar, float32 or wider: negative log-likelihood summed over the target tokens.

    Without target tokens it is a zero that depends on every parameter, so that backward runs as on other ranks.
    """
    logits = target_logits(model, examples)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return cross_entropy(wide, examples.target_ids, ignore_index=IGNORED_ID, reduction="sum")
