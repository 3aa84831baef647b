"""``python -m bench.smollm``: the phases in turn, each skipped if its result is there; then figures and the page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.results import RESULTS, save
from bench.smollm.clients import clients_phase
from bench.smollm.kills import kills_phase
from bench.smollm.page import page
from bench.smollm.peers import peers_phase
from bench.smollm.phase import Phase, Phases
from bench.smollm.phases import measuring_phases, model_phases, records_phase, replay_phase, tuning_phase
from bench.smollm.plan import EXAMPLES_PER_STEP, FULL, MORE, ROOT, SHARED_DATA, Plan, num_threads
from galpaca.app.console import make_console
from galpaca.errors import GalpacaError, InputError, Problems
from galpaca.files.atomic import replace_file

_BASE_PHASES = ("fetch", "model", "records", FULL.name, "losses", "questions", "prose")


def main() -> int:
    console = make_console()
    try:
        measure(arguments(), console)
    except GalpacaError as error:
        console.print(f"error: {error}", markup=False)
        return error.exit_code
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.smollm", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="for all that is fetched and trained (%(default)s)")
    data = SHARED_DATA / "alpaca_999.json"
    parser.add_argument("--data", type=Path, default=data, help="Alpaca-format records (%(default)s)")
    parser.add_argument(
        "--more",
        nargs="+",
        default=[],
        choices=MORE,
        help="tunings beyond the full one; peers; runs that are killed; clients",
    )
    parser.add_argument("--only", metavar="PHASE", help="run this phase alone; those before it must be done")
    parser.add_argument(
        "--tiny", action="store_true", help="a random model and few records: seconds, figures of nothing"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of figures and page (%(default)s)")
    return parser.parse_args()


def measure(given: argparse.Namespace, console: Console) -> None:
    """Runs what was requested and is not done, and writes the page if all that it needs is done.

    Raises:
        InputError: invalid options.
        GalpacaError: a phase failed; those before it are kept.
    """
    plan = make_plan(given)
    phases = Phases(plan.root / "phases", console)
    for phase in first_phases(plan):
        phases.run(phase, is_wanted=given.only in (None, phase.name) and is_requested(phase, plan))
    tuned = [tuning for some in ((FULL,), *MORE.values()) for tuning in some if tuning.name in phases.done]
    for phase in [*measuring_phases(plan, tuned), peers_phase(plan), kills_phase(plan), clients_phase(plan)]:
        phases.run(phase, is_wanted=given.only in (None, phase.name) and is_requested(phase, plan))
    if given.only and given.only not in phases.done:
        raise InputError(
            "there is no such phase", where=f"--only {given.only}", fix=f"one of {', '.join(_all_names())}"
        )
    if {FULL.name, "losses", "questions", "prose"} <= phases.done.keys():
        write(plan, phases, given.out, console)


def make_plan(given: argparse.Namespace) -> Plan:
    """What was requested.

    Raises:
        InputError: there are no such records, or the root cannot be made.
    """
    with Problems() as problems:
        if not given.data.is_file():
            fix = "--data FILE with Alpaca's records, or others of their form"
            problems.add("there are no such records", where=given.data, fix=fix)
        try:
            given.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problems.add(f"the folder cannot be made: {error.strerror}", where=given.root, fix="--root FOLDER")
    return Plan(given.root.resolve(), given.data.resolve(), given.tiny, tuple(given.more))


def first_phases(plan: Plan) -> list[Phase]:
    """All that comes before measuring, every tuning that there can be among it."""
    others = [tuning_phase(tuning, plan) for some in MORE.values() for tuning in some]
    return [*model_phases(plan), records_phase(plan), tuning_phase(FULL, plan), replay_phase(plan), *others]


def is_requested(phase: Phase, plan: Plan) -> bool:
    if phase.name == "replayed":
        return "replay" in plan.more
    return phase.name in (*_BASE_PHASES, *plan.more, *(tuning.name for tuning in plan.tunings))


def _all_names() -> list[str]:
    return [
        *_BASE_PHASES,
        "replayed",
        *(tuning.name for some in MORE.values() for tuning in some),
        *(name for name, some in MORE.items() if not some),
    ]


def write(plan: Plan, phases: Phases, out: Path, console: Console) -> None:
    """Writes the figures, and the page that is made of them."""
    path = save("smollm", gathered(plan, phases), out)
    figures = json.loads(path.read_text(encoding="utf-8"))
    replace_file(path.with_suffix(".md"), page(figures))
    console.print(f"written: {path} and {path.with_suffix('.md').name}", markup=False, soft_wrap=True)


def _command(plan: Plan, done: Mapping[str, Any]) -> str:
    """That would find all of this in one go."""
    more = [name for name, some in MORE.items() if all(one.name in done for one in some) and (some or name in done)]
    options = [*(["--tiny"] if plan.tiny else []), *(["--more", *more] if more else [])]
    return " ".join(["python -m bench.smollm", *options])


def gathered(plan: Plan, phases: Phases) -> dict[str, Any]:
    """JSON-ready figures of all phases that are done."""
    found = {name: done.found for name, done in phases.done.items()}
    tunings = [tuning.name for some in ((FULL,), *MORE.values()) for tuning in some if tuning.name in found]
    losses = found["losses"]
    return {
        "command": _command(plan, found),
        "title": "A tiny random Llama" if plan.tiny else "SmolLM2-135M-Instruct on Alpaca's records",
        "threads": num_threads(),
        "examples_per_step": EXAMPLES_PER_STEP,
        "seconds": {name: done.seconds for name, done in phases.done.items()},
        "model": found["model"],
        "records": found["records"],
        "tunings": [found[name] for name in tunings],
        # Where a model lay is nobody's business.
        "losses": {**losses, "models": [{**one, "name": one["label"]} for one in losses["models"]]},
        "questions": found["questions"],
        "prose": found["prose"],
        "replayed": found.get("replayed"),
        **{name: found.get(name) for name, some in MORE.items() if not some},
    }


if __name__ == "__main__":
    sys.exit(main())
