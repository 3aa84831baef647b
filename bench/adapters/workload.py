"""What is trained on what, and by which recipe: what all ways of tuning share, and the rate that each has."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

EXAMPLES_PER_STEP = 8
LONGEST_EXAMPLE_TOKENS = 256  # the demo's positions
PEFT = "peft_lora"
# Of galpaca, by the file of its group ``tuning``.
TUNINGS = {"full": "full", "lora": "lora", "qlora": "qlora"}
METHODS = (*TUNINGS, PEFT)
FULL_LR = 3e-4
ADAPTER_LR = 3e-3


def learning_rate(method: str) -> float:
    return FULL_LR if method == "full" else ADAPTER_LR


@dataclass(frozen=True)
class Workload:
    """A folder with the base in ``base/model``, and the records; all that is trained goes below it.

    Attributes:
        folder: of the above.
        num_records: that are tuned on, whole steps.
        num_epochs: how often.
    """

    folder: str
    num_records: int
    num_epochs: int

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def base(self) -> Path:
        """The demo's released model."""
        return self.path / "base" / "model"

    @property
    def steps_per_epoch(self) -> int:
        return self.num_records // EXAMPLES_PER_STEP

    @property
    def num_steps(self) -> int:
        return self.num_epochs * self.steps_per_epoch

    def tuned(self, method: str, seed: int) -> Path:
        """Where one training writes: galpaca's run folder, or PEFT's with ``model/`` and ``outcome.json``."""
        return self.path / f"{method}-{seed}"

    def save(self) -> None:
        (self.path / "workload.json").write_text(json.dumps(asdict(self)), encoding="utf-8")


def load_workload(folder: Path) -> Workload:
    return Workload(**json.loads((folder / "workload.json").read_text(encoding="utf-8")))
