"""``python -m bench.gpu``: measures training on this machine's GPU; on its CPU, where there is none, a little of it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.gpu.costs import LargestCosts
from bench.gpu.invariants import CHECKS
from bench.gpu.limits import machine_limits, path_figures
from bench.gpu.peer import measure_trainer
from bench.gpu.training import WARM_UP_STEPS, Case, measure
from bench.gpu.waits import no_waits
from bench.gpu.workload import SHAPES, make_examples
from bench.results import RESULTS, save
from galpaca.data.examples import EncodedExamples
from galpaca.model.compute_spec import ComputeSpec
from galpaca.training.memory import prepare_memory
from galpaca.training.optimizers.adamw import AdamW
from galpaca.training.specs import OptimizerSpec

EAGER = ComputeSpec(compile=False)
UNFUSED = OptimizerSpec(factory=AdamW(fused=False))
COMPACT = OptimizerSpec(factory=AdamW(moments_dtype="bfloat16"))

_PROFILED = Case("6.7b", "6.7b", "bf16-mixed", max_tokens=4_096)
# In the order of their worth: what comes late is left out when time runs out.
_DEFAULTS = [
    _PROFILED,
    Case("6.7b", "6.7b", "16-mixed", max_tokens=4_096),
    Case("1.3b", "1.3b", "bf16-mixed"),
    Case("1.3b", "1.3b", "16-mixed"),
    Case("125m", "125m", "bf16-mixed", max_tokens=16_384),
    Case("125m", "125m", "16-mixed", max_tokens=16_384),
]
# Each switched on by itself; at 1.3b over the first of them.
_OPTIONS = [
    Case("6.7b: 8,192, selective", "6.7b", "bf16-mixed", ComputeSpec(activation_checkpointing="selective")),
    Case("6.7b: 8,192, bf16 moments", "6.7b", "bf16-mixed", optim=COMPACT),
    Case("eager, AdamW in a loop", "1.3b", "bf16-mixed", EAGER, UNFUSED),
    Case("+ fused AdamW", "1.3b", "bf16-mixed", EAGER),
    Case("+ compiled layers", "1.3b", "bf16-mixed", ComputeSpec(compile=True), UNFUSED),
    Case("selective recomputation", "1.3b", "bf16-mixed", ComputeSpec(activation_checkpointing="selective")),
    Case("full recomputation", "1.3b", "bf16-mixed", ComputeSpec(activation_checkpointing="full")),
    Case("bfloat16 moments", "1.3b", "bf16-mixed", optim=COMPACT),
    Case("micro-batches of 4,096", "1.3b", "bf16-mixed", max_tokens=4_096),
    Case("micro-batches of 16,384", "1.3b", "bf16-mixed", max_tokens=16_384),
]
_ON_CPU = [Case("125m", "125m", "32-true", examples=8, max_tokens=1_024, timed_steps=2)]


def main() -> int:
    given = arguments()
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    prepare_memory("gpu" if device.type == "cuda" else "cpu")
    bench = _Bench(device, given.minutes, given.out)
    examples = make_examples(given.lengths)
    if device.type == "cuda":
        _on_gpu(bench, examples, given.shapes.split(","))
    else:
        print("No GPU: the smallest shape on the CPU, a few examples. Not a measurement of what galpaca is for.")
        bench.run("125m", lambda: measure(_ON_CPU[0], examples, device), bench.rows)
    print(bench.table())
    print(f"written: {bench.save()}")
    return 1 if bench.failures else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=7.5, help="begin nothing new after this long (%(default)s)")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of the models (%(default)s)")
    parser.add_argument("--lengths", type=Path, help="CSV of num_tokens,num_target_tokens; by default like Alpaca's")
    parser.add_argument("--device", help="cuda or cpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    given = parser.parse_args()
    if unknown := set(given.shapes.split(",")) - set(SHAPES):
        parser.error(f"unknown shapes: {', '.join(sorted(unknown))}")
    return given


def _on_gpu(bench: _Bench, examples: EncodedExamples, shapes: list[str]) -> None:
    device = bench.device
    torch.cuda.set_device(0)
    bench.run("limits", lambda: machine_limits(device), bench.limits)
    for name, check in CHECKS.items():
        bench.run(name, partial(check, device, torch.bfloat16), bench.checks, name)
    bench.run("no leak, float32", lambda: CHECKS["no leak"](device, torch.float32), bench.checks, "no leak, float32")
    waits = {"bf16-mixed": None, "16-mixed": None, "16-mixed, unfused": UNFUSED, "16-mixed, bf16 moments": COMPACT}
    for how, optim in waits.items():
        precision, name = how.partition(",")[0], f"no waits, {how}"
        bench.run(name, partial(no_waits, examples, device, precision, optim), bench.checks, name)
    for case in (case for case in _DEFAULTS if case.shape in shapes):
        profiled = [LargestCosts(WARM_UP_STEPS + case.timed_steps)] if case == _PROFILED else []
        measured = partial(measure, case, examples, device, profiled, untimed_steps=len(profiled))
        bench.run(f"{case.name} {case.precision}", measured, bench.rows)
        for costs in profiled:
            bench.costs.extend(costs.rows)
    if "1.3b" in shapes:
        bench.run("transformers.Trainer 1.3b", lambda: measure_trainer("1.3b", examples, device), bench.rows)
    for shape in shapes:
        flops = bench.limits.get("matmul_flops", float("nan"))
        bench.run(f"paths {shape}", partial(path_figures, shape, examples, device, flops), bench.paths, shape)
    for case in (case for case in _OPTIONS if case.shape in shapes):
        bench.run(f"{case.shape} {case.name}", partial(measure, case, examples, device), bench.rows)


class _Bench:
    """Runs one measurement after the other; what fails is reported and kept, and the rest continues."""

    def __init__(self, device: torch.device, minutes: float, out: Path) -> None:
        self.device, self.out = device, out
        self.rows: list[dict[str, Any]] = []
        self.limits: dict[str, Any] = {}
        self.paths: dict[str, Any] = {}
        self.checks: dict[str, Any] = {}
        self.costs: list[dict[str, Any]] = []
        self.failures: dict[str, str] = {}
        self.left_out: list[str] = []
        self._begin, self._seconds = time.monotonic(), minutes * 60

    def run(self, name: str, measure: Callable[[], dict[str, Any]], place: Any, key: str | None = None) -> None:
        begin = time.monotonic()
        if begin - self._begin > self._seconds:
            self.left_out.append(name)
            return
        try:
            found = measure()
        except Exception as error:  # whatever it was, the next measurement may do
            self.failures[name] = f"{type(error).__name__}: {error}"[:2_000]
            print(f"{name}: FAILED, {self.failures[name]}", flush=True)
            return
        if isinstance(place, list):
            place.append(found)
        elif key is not None:
            place[key] = found
        else:
            place.update(found)
        if found.get("passed") is False:
            self.failures[name] = f"{found}"
        print(f"{name}: {_short(found)} ({time.monotonic() - begin:.0f} s)", flush=True)
        self.save()  # a run that is cut off keeps what it found

    def save(self) -> Path:
        return save("gpu", self.figures(), self.out)

    def figures(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "limits": self.limits,
            "paths": self.paths,
            "invariants": self.checks,
            "largest_costs": self.costs,
            "ratio_to_trainer": self._ratio(),
            "failures": self.failures,
            "left_out": self.left_out,
            "seconds": time.monotonic() - self._begin,
        }

    def table(self) -> str:
        heading = f"{'':<26}{'shape':>6}{'precision':>12}{'tokens/s':>10}{'MFU':>7}{'GiB':>7}{'step s':>8}"
        lines = [heading + f"{'fwd+bwd':>9}{'update':>8}{'warm-up s':>11}{'recompiled':>11}"]
        for row in self.rows:
            mfu = f"{row['mfu']:.1%}" if row["mfu"] else ""
            line = f"{row['name']:<26}{row['shape']:>6}{row['precision']:>12}{row['tokens_per_second']:>10,.0f}{mfu:>7}"
            line += f"{row['peak_memory_bytes'] / 2**30:>7.1f}{row['step_seconds']:>8.3f}"
            if "warm_up_seconds" in row:
                line += f"{row['forward_backward_seconds']:>9.3f}{row['optimizer_seconds']:>8.3f}"
                line += f"{row['warm_up_seconds']:>11.1f}{row['recompilations']:>11}"
            lines.append(line)
        for cost in self.costs:
            lines.append(f"{cost['share']:>6.1%} {cost['calls']:>6} x {cost['kernel']}")
        for kind, names in (("failed", list(self.failures)), ("left out, no time", self.left_out)):
            if names:
                lines.append(f"{kind}: {', '.join(names)}")
        if ratio := self._ratio():
            lines.append(f"galpaca to transformers.Trainer at 1.3b: {ratio:.2f}x")
        return "\n".join(lines)

    def _ratio(self) -> float | None:
        speeds = {
            row["name"]: row["tokens_per_second"]
            for row in self.rows
            if row["shape"] == "1.3b" and row["precision"] == "bf16-mixed"
        }
        if not {"1.3b", "transformers.Trainer"} <= speeds.keys():
            return None
        return float(speeds["1.3b"] / speeds["transformers.Trainer"])


def _short(found: dict[str, Any]) -> str:
    parts = []
    for key, value in found.items():
        if isinstance(value, float):
            parts.append(f"{key} {value:.4g}")
        elif isinstance(value, int):
            parts.append(f"{key} {value}")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
