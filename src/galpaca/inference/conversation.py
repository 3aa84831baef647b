"""A question with the turns before it, for models that were trained on conversations."""

from collections.abc import Sequence

from galpaca.data.records import Record, Turn
from galpaca.inference.loading import Loaded


def next_question(loaded: Loaded, history: Sequence[Turn], instruction: str, input: str = "") -> tuple[Record, int]:
    """The question that the model is to answer.

    Args:
        history: earlier turns, with their answers. They are kept, and left out, only for models that see them.

    Returns:
        The question, and how many of the first turns are left out, since the context has no room for them.
    """
    kept = list(history) if loaded.keeps_turns else []
    for first in range(len(kept) + 1):
        question = _record(kept[first:], instruction, input)
        if loaded.positions is None or len(loaded.prompt_ids([question])[0]) < loaded.positions:
            return question, first
    return question, len(kept)


def _record(history: Sequence[Turn], instruction: str, input: str) -> Record:
    """Only the first question has an input of its own; later ones have it below the instruction."""
    turns = [*history, Turn(instruction, input, "")]
    first, *others = turns
    joined = (Turn("\n\n".join(filter(None, turn[:2])), "", turn.output) for turn in others)
    return Record((first, *joined))
