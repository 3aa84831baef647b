"""The same steps by ``transformers.Trainer`` and TRL, through ``bench.peers``."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.smollm.commands import run
from bench.smollm.phase import Found, Phase
from bench.smollm.plan import EXAMPLES_PER_STEP, FULL_LR, MAX_LENGTH_TOKENS, MAX_TOKENS, Plan


def peers_phase(plan: Plan) -> Phase:
    """Eight steps of each contender, in turns, as often as the plan says."""
    options = [
        f"--steps={plan.sizes.peer_steps}",
        f"--step-examples={EXAMPLES_PER_STEP}",
        f"--lr={FULL_LR}",
        f"--max-length={MAX_LENGTH_TOKENS}",
        f"--max-tokens={MAX_TOKENS}",
        f"--repeats={plan.sizes.peer_repeats}",
    ]
    if plan.tiny and find_spec("trl") is None:  # a try of the phases, which nobody installs TRL for
        options.append("--only=galpaca,trainer,trainer_padded")

    def compared(_: dict[str, Found]) -> Found:
        out = plan.root / "peers"
        model = [f"--model={plan.base}", f"--data={plan.train_file}", f"--out={out}"]
        run([sys.executable, "-m", "bench.peers", *model, *options], "bench.peers")
        return newest(out)

    return Phase("peers", ("model", "records"), options, compared)


def newest(folder: Path) -> dict[str, Any]:
    """The last result of ``bench.peers``, without what says where it ran."""
    found = json.loads(max(folder.glob("*_peers_*.json")).read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key != "command"}
