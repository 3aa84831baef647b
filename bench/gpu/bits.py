"""``python -m bench.gpu.bits``: a few steps twice with one seed; are the weights equal to the bit?

Without and with ``compute.deterministic``. FlashAttention's backward adds in any order without it,
so only with it is a difference a failure; without it, it is a fact that is written down. A process of its own, which
``bench.gpu`` starts: cuBLAS reads what determinism wants of it once, from the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.gpu.case import Case
from bench.gpu.training import free_memory, train
from bench.gpu.workload import make_examples
from bench.results import REPOSITORY
from galpaca.data.examples import EncodedExamples

NUM_STEPS = 4
_WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
_LIMIT_SECONDS = 300
CASES = (
    Case("bits", "125m", "bf16-mixed", max_tokens=16_384),
    Case("bits", "125m", "16-mixed", max_tokens=16_384),
)


def twice(case: Case, examples: EncodedExamples, device: torch.device, *, deterministic: bool) -> dict[str, Any]:
    """Trains twice and compares.

    Returns:
        How many weights differ and by how much at most, and whether losses are equal; ``passed`` where it must be so.
    """
    case = replace(case, compute=replace(case.compute, deterministic=deterministic))
    runs = []
    for _ in range(2):
        free_memory(device)
        model, lines = train(case, examples, device, num_steps=NUM_STEPS)
        runs.append(([one.detach().cpu() for one in model.parameters()], [line.loss for line in lines]))
        del model
    (weights, losses), (others, other_losses) = runs
    unequal = sum(int((a != b).sum()) for a, b in zip(weights, others, strict=True))
    furthest = max(float((a - b).abs().max()) for a, b in zip(weights, others, strict=True))
    equal = unequal == 0 and losses == other_losses
    found = {"deterministic": deterministic, "equal": equal, "unequal_weights": unequal, "furthest": furthest}
    return {**found, "losses": losses, "passed": equal or not deterministic}


def in_a_process() -> dict[str, Any]:
    """All of it on the GPU, in a process whose environment cuBLAS wants.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="galpaca-bits-") as folder:
        out = Path(folder) / "bits.json"
        done = subprocess.run(
            [sys.executable, "-m", "bench.gpu.bits", "--out", str(out)],
            cwd=REPOSITORY,
            env={**os.environ, **_WORKSPACE},
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
        )
        if not out.is_file():
            raise RuntimeError(f"exit code {done.returncode}: {(done.stdout + done.stderr)[-1_500:]}")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def all_cases(cases: tuple[Case, ...], examples: EncodedExamples, device: torch.device) -> dict[str, Any]:
    """Each case without and with deterministic algorithms, by name; what raises is a failure with its message."""
    found: dict[str, Any] = {}
    for case in cases:
        for deterministic in (False, True):
            name = f"{case.precision}, {'deterministic' if deterministic else 'as it is'}"
            try:
                found[name] = twice(case, examples, device, deterministic=deterministic)
            except Exception as error:  # an operation without a deterministic way; the other cases go on
                found[name] = {"passed": False, "error": f"{type(error).__name__}: {error}"[:1_000]}
    return {**found, "passed": all(one["passed"] for one in found.values())}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.bits", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file of results")
    given = parser.parse_args()
    found = all_cases(CASES, make_examples(), torch.device("cuda:0"))
    given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
