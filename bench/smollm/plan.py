"""What is measured where: folders, sizes and the recipe."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.results import REPOSITORY

SHARED_DATA = Path(os.environ.get("GALPACA_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
ROOT = REPOSITORY / "runs" / "smollm"
ROOM = Path(__file__).parent
QUESTIONS = ROOM / "questions.jsonl"
PROSE = ROOM / "prose.md"

EXAMPLES_PER_STEP = 16
MAX_LENGTH_TOKENS = 512
# Of a micro-batch: fewer are slower on 2 cores, says the lab book.
MAX_TOKENS = 2048
# Of 3e-5, 1e-4 and 3e-4 that with the lowest loss on records outside of the test; the lab book has the figures.
FULL_LR = 1e-4
# Not chosen: ten times that of full tuning, as conf/recipe/alpaca_lora.yaml has it beside conf/recipe/alpaca.yaml.
ADAPTER_LR = 1e-3


class Tuning(NamedTuple):
    """One tuning of the model.

    Attributes:
        name: of its run.
        method: file of the group ``tuning``.
        lr: learning rate.
        replays: whether an epoch also has the model's own answers from before.
    """

    name: str
    method: str
    lr: float
    seed: int
    replays: bool = False


FULL = Tuning("full", "full", FULL_LR, 42)
# What ``--more`` can name; the last three are no tunings of their own.
MORE: dict[str, tuple[Tuning, ...]] = {
    "lora": (Tuning("lora", "lora", ADAPTER_LR, 42),),
    "qlora": (Tuning("qlora", "qlora", ADAPTER_LR, 42),),
    "seeds": (Tuning("full-seed-43", "full", FULL_LR, 43), Tuning("full-seed-44", "full", FULL_LR, 44)),
    "replay": (Tuning("full-replay", "full", FULL_LR, 42, replays=True),),
    "peers": (),
    "kills": (),
    "clients": (),
}


class Sizes(NamedTuple):
    """How much is measured.

    Attributes:
        records: of the file; None takes all.
        questions, passages: of the benchmark's own; None takes all.
        prompts: answered side by side.
        answer_tokens, short_answer_tokens: most of an answer, side by side and to a question.
        replayed: of the model's own answers that a tuning may replay.
        peer_steps, peer_repeats: of each contender.
        kills: runs that are killed.
    """

    records: int | None = None
    questions: int | None = None
    passages: int | None = None
    prompts: int = 12
    answer_tokens: int = 128
    short_answer_tokens: int = 48
    replayed: int = 64
    peer_steps: int = 8
    peer_repeats: int = 3
    kills: int = 5


TINY = Sizes(
    records=160,
    questions=12,
    passages=3,
    prompts=2,
    answer_tokens=4,
    short_answer_tokens=4,
    replayed=16,
    peer_steps=3,
    peer_repeats=2,
    kills=1,
)


@dataclass(frozen=True)
class Plan:
    """One measurement.

    Attributes:
        root: all that is fetched, trained and found goes below it.
        data: Alpaca-format records.
        tiny: a random model of seconds instead of the real one.
        more: names of ``MORE``.
    """

    root: Path
    data: Path
    tiny: bool = False
    more: tuple[str, ...] = ()

    @property
    def sizes(self) -> Sizes:
        return TINY if self.tiny else Sizes()

    @property
    def tunings(self) -> list[Tuning]:
        """Every tuning that was requested, the full one first."""
        return [FULL, *(tuning for name, some in MORE.items() if name in self.more for tuning in some)]

    @property
    def base(self) -> Path:
        """The model before; the card of what is tuned names its folder."""
        return self.root / ("tiny-random-llama" if self.tiny else "SmolLM2-135M-Instruct-dequantized-from-4-bits")

    @property
    def without_template(self) -> Path:
        """The same model, whose tokenizer brings no chat template, so that it can be asked in Alpaca's."""
        return self.root / "model-without-template"

    @property
    def train_file(self) -> Path:
        return self.root / "records" / "train.json"

    @property
    def test_file(self) -> Path:
        return self.root / "records" / "test.json"

    @property
    def prompts_file(self) -> Path:
        """Test prompts whose answers are shown side by side."""
        return self.root / "records" / "prompts.json"

    @property
    def replay_file(self) -> Path:
        return self.root / "records" / "own_answers.json"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run_of(self, tuning: Tuning) -> Path:
        return self.runs / tuning.name


def num_threads() -> int:
    """Of everything that computes: one for each core that may be used, unless the environment says so."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
