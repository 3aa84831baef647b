"""Examples of several sources as one."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from galpaca.data.examples import EncodedExamples
from galpaca.data.receipt import summed


def join(parts: Sequence[EncodedExamples]) -> EncodedExamples:
    """All examples, those of the first part first. The tokens of several parts are copied into memory."""
    if len(parts) == 1:
        return parts[0]
    return EncodedExamples(
        tokens=np.concatenate([part.tokens for part in parts]),
        offsets=_shifted([part.offsets for part in parts]),
        spans=np.concatenate([part.spans for part in parts]),
        span_offsets=_shifted([part.span_offsets for part in parts]),
        content_hashes=np.concatenate([part.content_hashes for part in parts]),
        prompt_hashes=np.concatenate([part.prompt_hashes for part in parts]),
        near_hashes=np.concatenate([part.near_hashes for part in parts]),
        record_indices=np.concatenate([part.record_indices for part in parts]),
        receipt=summed([part.receipt for part in parts]),
    )


def _shifted(offsets: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Offsets of parts that stand one behind the other."""
    whole = [offsets[0]]
    for part in offsets[1:]:
        whole.append(part[1:] + whole[-1][-1])
    return np.concatenate(whole)
