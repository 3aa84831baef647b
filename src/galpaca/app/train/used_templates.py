"""The templates of a run's examples, and what follows from them for the released model, which has but one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from galpaca.data.chat_template import CHAT_TEMPLATE
from galpaca.data.encoding import RecordEncoder
from galpaca.data.examples import EncodedExamples
from galpaca.data.prompt_file import TWO_TURNS
from galpaca.data.prompting import BoundTemplate
from galpaca.errors import InputError

if TYPE_CHECKING:
    from galpaca.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class SourceTemplate:
    """The template of one source.

    Attributes:
        name: of the source; empty where there is but one.
        is_trained: its records are trained on, unlike those for validation alone.
    """

    name: str
    template: BoundTemplate
    is_trained: bool


@dataclass(frozen=True)
class UsedTemplates:
    """Which templates the examples have.

    Attributes:
        released: the template of the released model's prompts.
        sources: those of the sources, in the order of their examples.
    """

    released: BoundTemplate
    sources: tuple[SourceTemplate, ...]

    def check(self) -> None:
        """Templates of texts may be mixed as one likes. A tokenizer's own must be the released one, too: else the model
        would be asked in a form that no example has, and its records could not be encoded again.

        Raises:
            InputError: examples have the tokenizer's template and the released model another, or the other way round.
        """
        trained = [one for one in self.sources if one.is_trained]
        all_templates = [self.released, *(one.template for one in trained)]
        if not any(map(_is_tokenizers, all_templates)):
            return
        if not _is_tokenizers(self.released):
            name = next(one.name for one in trained if _is_tokenizers(one.template))
            what = f"the source {name} has its tokenizer's chat template, and the released model {self.released.name}"
            raise _not_released(what, f"data.template={CHAT_TEMPLATE}")
        if not any(map(self._is_released, trained)):
            [other, *_] = [one.template for one in trained]
            date = f"data.template_date={other.saved().get('date')}"
            fix = date if _is_tokenizers(other) else f"data.template={other.name}"
            raise _not_released("no source has the chat template that the released model would have", fix)

    def keeps_turns(self, parts: Sequence[EncodedExamples]) -> bool:
        """Whether examples of the released model's form have several turns.

        Args:
            parts: the examples of each source.
        """
        pairs = zip(self.sources, parts, strict=True)
        has_any = any(part.receipt.conversations for one, part in pairs if one.is_trained and self._is_released(one))
        return has_any and _writes_turns(self.released)

    def end_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """All tokens that end an answer, that of the released model's examples first."""
        templates = [self.released, *(one.template for one in self.sources if one.is_trained)]
        trained = [RecordEncoder(tokenizer, one).end_id for one in templates]
        return tuple(dict.fromkeys([*trained, *tokenizer.end_ids]))

    def in_released_form(self, parts: Sequence[EncodedExamples]) -> npt.NDArray[np.bool_]:
        """(N,) which examples are prompted as the released model is."""
        pairs = zip(self.sources, parts, strict=True)
        return np.concatenate([np.full(len(part), self._is_released(one)) for one, part in pairs])

    def _is_released(self, one: SourceTemplate) -> bool:
        return one.template.fingerprint == self.released.fingerprint


def _is_tokenizers(template: BoundTemplate) -> bool:
    return template.jinja is not None


def _writes_turns(template: BoundTemplate) -> bool:
    try:
        template.turns(TWO_TURNS)
    except InputError:
        return False
    return True


def _not_released(what: str, fix: str) -> InputError:
    why = "it would be prompted as no example is, or stop where no answer ends"
    return InputError(what, where="data.template", why=why, fix=fix)
