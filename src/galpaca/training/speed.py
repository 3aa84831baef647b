"""How fast a step was, counted in what is useful: real tokens, and the operations that the model needs for them."""

from dataclasses import dataclass

from galpaca.data.collate import StepBatch
from galpaca.estimate.flops import Architecture, step_flops
from galpaca.training.clock import Mark, seconds_between
from galpaca.training.module import StepOutcome


@dataclass(frozen=True)
class StepSpeed:
    """Turns a step's times into figures.

    Attributes:
        architecture: architecture of the model.
        peak_flops: peak FLOP/s of all GPUs of the run together, if known.
    """

    architecture: Architecture
    peak_flops: float | None

    def figures(self, batch: StepBatch, previous_end: Mark, outcome: StepOutcome) -> dict[str, float]:
        """The step's line of figures. Times are those of this rank's device.

        ``data_seconds`` is how long the device waited for the step: collation, copies and whatever else the host did.
        """
        step = batch.planned
        seconds = seconds_between(previous_end, outcome.end)
        figures = {
            "tokens_per_second": round(step.num_tokens / seconds, 1),
            "target_tokens_per_second": round(step.num_target_tokens / seconds, 1),
            "non_padding_fraction": round(step.num_tokens / batch.num_padded_tokens, 5),
            "step_seconds": round(seconds, 4),
            "data_seconds": round(seconds_between(previous_end, outcome.begin), 4),
            "forward_backward_seconds": round(seconds_between(outcome.begin, outcome.backward_end), 4),
            "optimizer_seconds": round(seconds_between(outcome.backward_end, outcome.end), 4),
        }
        if self.peak_flops:
            flops = step_flops(self.architecture, step.num_tokens, step.num_attention_pairs)
            figures["mfu"] = round(flops / seconds / self.peak_flops, 4)
        return figures
