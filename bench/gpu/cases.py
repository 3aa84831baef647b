"""What is measured on one GPU, in the order of its worth: what comes late is left out when time runs out."""

from __future__ import annotations

from bench.gpu.case import Case
from galpaca.model.compute_spec import ComputeSpec
from galpaca.model.tuning.lora import Lora
from galpaca.model.tuning.qlora import QLora
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.specs import OptimizerSpec

EAGER = ComputeSpec(compile=False)
SELECTIVE = ComputeSpec(activation_checkpointing="selective")
FULL = ComputeSpec(activation_checkpointing="full")
UNFUSED = OptimizerSpec(factory=AdamW(fused=False))
COMPACT = OptimizerSpec(factory=AdamW(moments_dtype="bfloat16"))
ON_HOST = OptimizerSpec(factory=AdamW(moments_on="host"))
_ADAPTED = OptimizerSpec(lr=2e-4)

# Its step's kernels are listed by their time.
PROFILED = Case("6.7b selective", "6.7b", "bf16-mixed", SELECTIVE, max_tokens=4_096)
# Selective first: without recomputation 4,096 tokens leave next to nothing of a card of 141 GB (est.).
DEFAULTS = [
    PROFILED,
    Case("6.7b", "6.7b", "bf16-mixed", max_tokens=4_096),
    Case("6.7b selective", "6.7b", "16-mixed", SELECTIVE, max_tokens=4_096),
    Case("6.7b: 2,048", "6.7b", "bf16-mixed", max_tokens=2_048),
    Case("1.3b", "1.3b", "bf16-mixed"),
    Case("1.3b", "1.3b", "16-mixed"),
    Case("125m", "125m", "bf16-mixed", max_tokens=16_384),
    Case("125m", "125m", "16-mixed", max_tokens=16_384),
]
# Each switched on by itself; at 1.3b over the first of them.
OPTIONS = [
    Case("6.7b: 8,192, selective", "6.7b", "bf16-mixed", SELECTIVE),
    Case("6.7b: 8,192, bf16 moments", "6.7b", "bf16-mixed", SELECTIVE, COMPACT),
    Case("6.7b: moments on host", "6.7b", "bf16-mixed", FULL, ON_HOST, max_tokens=4_096),
    Case("eager, AdamW in a loop", "1.3b", "bf16-mixed", EAGER, UNFUSED),
    Case("+ update in one kernel", "1.3b", "bf16-mixed", EAGER),
    Case("+ compiled layers", "1.3b", "bf16-mixed", ComputeSpec(compile=True), UNFUSED),
    Case("selective recomputation", "1.3b", "bf16-mixed", SELECTIVE),
    Case("full recomputation", "1.3b", "bf16-mixed", FULL),
    Case("sums in any order", "1.3b", "bf16-mixed", ComputeSpec(deterministic=False)),
    Case("bfloat16 moments", "1.3b", "bf16-mixed", optim=COMPACT),
    Case("moments on host", "1.3b", "bf16-mixed", optim=ON_HOST),
    Case("micro-batches of 4,096", "1.3b", "bf16-mixed", max_tokens=4_096),
    Case("micro-batches of 16,384", "1.3b", "bf16-mixed", max_tokens=16_384),
]
# By ``--tuning lora,qlora``: 6.7B on any card, the frozen model's memory with and without recomputation.
ADAPTERS = [
    Case("LoRA", "6.7b", "bf16-mixed", FULL, _ADAPTED, max_tokens=4_096, tuning=Lora()),
    Case("QLoRA", "6.7b", "bf16-mixed", FULL, _ADAPTED, max_tokens=4_096, tuning=QLora()),
    Case("LoRA, no recomputation", "6.7b", "bf16-mixed", optim=_ADAPTED, max_tokens=4_096, tuning=Lora()),
    Case("LoRA", "1.3b", "bf16-mixed", FULL, _ADAPTED, max_tokens=4_096, tuning=Lora()),
    Case("QLoRA", "1.3b", "bf16-mixed", FULL, _ADAPTED, max_tokens=4_096, tuning=QLora()),
    Case("LoRA", "125m", "bf16-mixed", FULL, _ADAPTED, max_tokens=4_096, tuning=Lora()),
    Case("QLoRA", "125m", "bf16-mixed", FULL, _ADAPTED, max_tokens=4_096, tuning=QLora()),
]
ON_CPU = Case("125m", "125m", "32-true", examples=8, max_tokens=1_024, timed_steps=2)


def is_tuning(case: Case, names: list[str]) -> bool:
    """Whether a case's way of tuning is among these: full, lora, qlora."""
    own = {Lora: "lora", QLora: "qlora"}.get(type(case.tuning), "full")  # type: ignore[arg-type]
    return own in names
