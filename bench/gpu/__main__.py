"""``python -m bench.gpu``: measures training on this machine's GPU; on its CPU, where there is none, a little of it."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from bench.gpu.bits import in_a_process
from bench.gpu.case import Case, lack_of_memory
from bench.gpu.cases import ADAPTERS, COMPACT, DEFAULTS, ON_CPU, OPTIONS, PROFILED, UNFUSED, is_tuning
from bench.gpu.costs import LargestCosts
from bench.gpu.figures import GpuSession
from bench.gpu.invariants import CHECKS
from bench.gpu.limits import machine_limits, path_figures
from bench.gpu.peer import MICRO_BATCH, measure_trainer
from bench.gpu.training import WARM_UP_STEPS, measure
from bench.gpu.waits import no_waits
from bench.gpu.workload import SHAPES, make_examples
from bench.results import RESULTS
from galpaca.data.examples import EncodedExamples
from galpaca.training.determinism import set_determinism
from galpaca.training.memory import prepare_memory

TUNINGS = ("full", "lora", "qlora")


def main() -> int:
    given = arguments()
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    prepare_memory(accelerator)
    set_determinism(accelerator, deterministic=True)  # cuBLAS reads what that needs at its first product
    session = GpuSession(given.minutes, given.out, _file_name(given))
    examples = make_examples(given.lengths)
    if device.type == "cuda":
        torch.cuda.set_device(0)
        session.run("limits", lambda: machine_limits(device), session.limits)
        if given.checks:
            _checks(session, examples, device)
        _cases(session, examples, device, given.shapes.split(","), given.tuning.split(","))
    else:
        print("No GPU: the smallest shape on the CPU, a few examples. Not a measurement of what galpaca is for.")
        session.run("125m", lambda: measure(ON_CPU, examples, device), session.rows)
    print(session.table())
    print(f"written: {session.save()}")
    return 1 if session.failures else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=7.5, help="begin nothing new after this long (%(default)s)")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of the models (%(default)s)")
    parser.add_argument("--tuning", default="full", help=f"some of {','.join(TUNINGS)} (%(default)s)")
    parser.add_argument(
        "--checks", action=argparse.BooleanOptionalAction, default=True, help="invariants, waits, equal bits"
    )
    parser.add_argument("--lengths", type=Path, help="CSV of num_tokens,num_target_tokens; by default like Alpaca's")
    parser.add_argument("--device", help="cuda or cpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    given = parser.parse_args()
    for option, known in (("shapes", tuple(SHAPES)), ("tuning", TUNINGS)):
        if unknown := sorted(set(getattr(given, option).split(",")) - set(known)):
            parser.error(f"--{option}: not one of {', '.join(known)}: {', '.join(unknown)}")
    return given


def _file_name(given: argparse.Namespace) -> str:
    """Parts of one hour write files of their own."""
    shapes = [] if given.shapes == ",".join(SHAPES) else given.shapes.split(",")
    tuning = [] if given.tuning == "full" else given.tuning.split(",")
    return "-".join(["gpu", *shapes, *tuning])


def _checks(session: GpuSession, examples: EncodedExamples, device: torch.device) -> None:
    for name, check in CHECKS.items():
        session.run(name, partial(check, device, torch.bfloat16), session.checks, name)
    in_float32 = partial(CHECKS["no leak"], device, torch.float32)
    session.run("no leak, float32", in_float32, session.checks, "no leak, float32")
    session.run("equal bits twice", in_a_process, session.checks, "equal bits twice")
    waits = {"bf16-mixed": None, "16-mixed": None, "16-mixed, unfused": UNFUSED, "16-mixed, bf16 moments": COMPACT}
    for how, optim in waits.items():
        precision, name = how.partition(",")[0], f"no waits, {how}"
        session.run(name, partial(no_waits, examples, device, precision, optim), session.checks, name)


def _cases(
    session: GpuSession, examples: EncodedExamples, device: torch.device, shapes: list[str], tuning: list[str]
) -> None:
    card_bytes = torch.cuda.mem_get_info(device)[1]

    def wanted(cases: list[Case]) -> list[Case]:
        return [case for case in cases if case.shape in shapes and is_tuning(case, tuning)]

    def one(case: Case) -> None:
        name = f"{case.shape} {case.name} {case.precision}"
        profiled = [LargestCosts(WARM_UP_STEPS + case.timed_steps)] if case == PROFILED else []
        run = partial(measure, case, examples, device, profiled, untimed_steps=len(profiled))
        session.run(name, run, session.rows, lack=lack_of_memory(case, card_bytes))
        for costs in profiled:
            session.costs.extend(costs.rows)

    for case in wanted([*DEFAULTS, *ADAPTERS]):
        one(case)
    if "1.3b" in shapes and "full" in tuning:
        lack = lack_of_memory(MICRO_BATCH, card_bytes)
        trainer = partial(measure_trainer, "1.3b", examples, device)
        session.run("transformers.Trainer 1.3b", trainer, session.rows, lack=lack)
    for shape in shapes if "full" in tuning else []:
        flops = session.limits.get("matmul_flops", float("nan"))
        session.run(f"paths {shape}", partial(path_figures, shape, examples, device, flops), session.paths, shape)
    for case in wanted(OPTIONS):
        one(case)


if __name__ == "__main__":
    sys.exit(main())
