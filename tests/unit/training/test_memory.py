"""A process's memory settings: ours where there are none, in a process of its own since they cannot be taken back."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from galpaca.training.memory import prepare_memory
prepare_memory(sys.argv[1])
print(os.environ.get("PYTORCH_ALLOC_CONF"), os.environ.get("PYTORCH_CUDA_ALLOC_CONF"))
"""


@pytest.mark.parametrize(
    ("accelerator", "given", "found"),
    [
        ("cpu", {}, "None None"),
        ("gpu", {}, "expandable_segments:True None"),
        ("gpu", {"PYTORCH_ALLOC_CONF": "backend:native"}, "backend:native None"),
        ("gpu", {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, "None backend:native"),
    ],
)
def test_what_the_user_set_stays(accelerator: str, given: dict[str, str], found: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTORCH_")} | given
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, accelerator], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == found


def test_on_a_cpu_freed_memory_is_taken_again_without_page_faults() -> None:
    """A buffer of 40 MiB, freed and taken again ten times: 102,400 faults if the kernel hands it out each time."""
    script = """
import resource, sys
import torch
if sys.argv[1] == "keep":
    from galpaca.training.memory import keep_freed_memory
    keep_freed_memory()
def touch():
    block = torch.zeros(40 << 20, dtype=torch.uint8)
for _ in range(20):  # until the heap has room
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {}
    for how in ("keep", "default"):
        done = subprocess.run([sys.executable, "-c", script, how], capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["keep"] < 100
    assert faults["default"] > 1_000, "the C library keeps such blocks by itself now"


def test_freed_memory_is_kept_from_the_first_step_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept from the start, loading a model of 1.3b on two ranks left up to 0.6 GiB of whole layers behind."""
    from torch import nn

    from galpaca.model.tuning.full import FullTuning
    from galpaca.training.module import InstructionTuner
    from galpaca.training.specs import OptimizerSpec

    kept: list[bool] = []
    monkeypatch.setattr("galpaca.training.module.keep_freed_memory", lambda: kept.append(True))
    tuner = InstructionTuner(
        nn.Linear(1, 1),  # type: ignore[arg-type]
        OptimizerSpec(),
        num_steps=1,
        seed=0,
        tuning=FullTuning(),
    )
    assert kept == []
    tuner.on_train_start()
    assert kept == [True]
