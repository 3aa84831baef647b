"""Sampling settings: greedy decoding, or sampling with a seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from galpaca.errors import Problems

# Of weights.
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class WeightOptions:
    """How weights are loaded.

    Attributes:
        four_bits: linear layers in NF4, of a model of a known family, a quarter of their size in 16 bits.
        base: folder of the model that an adapter belongs to; None takes the one that it names.
    """

    four_bits: bool = False
    base: Path | None = None


@dataclass(frozen=True)
class Settings:
    """Sampling settings.

    Attributes:
        max_new_tokens: most tokens of an answer.
        temperature: sampling temperature; 0 is greedy.
        top_p: nucleus sampling: smallest set of tokens with this cumulative probability.
        top_k: sample from this many most likely tokens; 0 is off.
        repetition_penalty: above 1, tokens of the prompt and of the answer so far become less likely; 1 is off.
        seed: sampling seed.
        num_samples: answers per prompt.
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
        """Whether tokens are sampled rather than chosen greedily."""
        return self.temperature > 0

    def check(self) -> None:
        """Checks all values.

        Raises:
            InputError: invalid values, or values without an effect; all reported at once.
        """
        with Problems() as problems:
            self._check_ranges(problems)
            if not self.samples and not problems.count:
                drawn = {"--top-p": self.top_p < 1, "--top-k": self.top_k > 0, "--samples": self.num_samples > 1}
                for option in [option for option, given in drawn.items() if given]:
                    problems.add("has no effect: temperature 0 is greedy", where=option, fix="e.g. --temperature 0.7")

    def _check_ranges(self, problems: Problems) -> None:
        problems.check_number("--max-new-tokens", self.max_new_tokens, "at least 1", "e.g. 512")
        problems.check_number("--temperature", self.temperature, ">= 0", "0 is greedy")
        problems.check_number("--top-p", self.top_p, "in (0, 1]", "1 is off")
        problems.check_number("--top-k", self.top_k, "at least 0", "0 is off")
        problems.check_number("--repetition-penalty", self.repetition_penalty, "> 0", "1 is off")
        problems.check_at_least_one("--", {"samples": self.num_samples})
