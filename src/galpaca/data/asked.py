"""Questions of records that were encoded, read back from their ids: the records themselves may be far away by then."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galpaca.data.examples import EncodedExamples
from galpaca.data.prompting import BoundTemplate
from galpaca.data.records import Record
from galpaca.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Asked:
    """The question of one example.

    Attributes:
        ids: the prompt of its last answer, as it is trained on.
        record: its instruction and input; of a conversation, all of the prompt as the instruction.
        index: of its record in the data, from 0.
    """

    ids: Sequence[int]
    record: Record
    index: int


def asked(
    examples: EncodedExamples, indices: Sequence[int], tokenizer: Tokenizer, template: BoundTemplate
) -> list[Asked]:
    """The questions of examples; those without a target have none."""
    found = []
    for index in indices:
        spans = examples.targets(int(index))
        if len(spans):
            ids = examples.ids(int(index))[: int(spans[-1][0])].tolist()
            text = tokenizer.decode(ids) if template.end_text is None else tokenizer.whole_text(ids)
            record = template.question_of(text)
            found.append(Asked(ids, record, int(examples.record_indices[int(index)])))
    return found


def spread(indices: npt.NDArray[np.signedinteger], count: int) -> list[int]:
    """At most so many of them, evenly from the first to the last."""
    step = max(1, len(indices) // count)
    return [int(index) for index in indices[::step][:count]]
