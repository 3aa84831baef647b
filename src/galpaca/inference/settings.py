"""How an answer is made of a model's logits: greedily, or by a draw that its seed decides."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from galpaca.errors import Problems


@dataclass(frozen=True)
class Settings:
    """The settings of answers.

    Attributes:
        max_new_tokens: after which an answer is cut.
        temperature: 0 is greedy; else logits are divided by it before the draw.
        top_p: draw among the likeliest tokens that together have this probability.
        top_k: draw among this many likeliest tokens; 0 is all.
        repetition_penalty: above 1, tokens of the prompt and of the answer so far become less likely.
        seed: of all draws.
        num_samples: answers to every prompt.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    num_samples: int = 1

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        return self.temperature > 0

    def check(self) -> None:
        """Raises:
        InputError: values that make no sense, or change nothing; all problems at once.
        """
        problems = Problems()
        self._check_ranges(problems)
        if not self.samples and not problems.count:
            drawn = {"--top-p": self.top_p < 1, "--top-k": self.top_k > 0, "--samples": self.num_samples > 1}
            for option in [option for option, given in drawn.items() if given]:
                problems.add(
                    "it changes nothing: at temperature 0 the likeliest token is taken",
                    where=option,
                    fix="--temperature 0.7, say",
                )
        problems.raise_any()

    def _check_ranges(self, problems: Problems) -> None:
        if self.max_new_tokens < 1:
            problems.add(f"{self.max_new_tokens} is too few", where="--max-new-tokens", fix="1 or more")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            problems.add(f"{self.temperature} is no temperature", where="--temperature", fix="0 for greedy, or more")
        if not 0 < self.top_p <= 1:
            problems.add(f"{self.top_p} is no probability", where="--top-p", fix="above 0, and 1 at most")
        if self.top_k < 0:
            problems.add(f"{self.top_k} is too few", where="--top-k", fix="0 for all tokens, or more")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            problems.add(
                f"{self.repetition_penalty} is no penalty", where="--repetition-penalty", fix="1 for none, or 1.1, say"
            )
        if self.num_samples < 1:
            problems.add(f"{self.num_samples} is too few", where="--samples", fix="1 or more")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
