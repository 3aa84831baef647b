"""``galpaca estimate --trace``: has a step traced in a process of its own, on a pretended card."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict

from galpaca.app.estimate.candidate import Candidate
from galpaca.app.estimate.traced import Trace, Traced
from galpaca.errors import GalpacaError, InputError
from galpaca.estimate.memory import MemoryParts, with_overheads
from galpaca.fake_cuda.process import command

_MODULE = "galpaca.app.estimate.traced"
# The last that has programs for a capability.
_CARDS = ((9.0, "h100"), (8.0, "a100"))


def traced_memory(candidate: Candidate, overrides: Sequence[str]) -> MemoryParts:
    """Counts what a step of the run allocates on a rank; what comes and goes is all in ``activations``.

    Raises:
        GalpacaError: no card can be pretended here, or the step cannot be traced.
    """
    gpu = candidate.cluster.gpu
    card = next((name for capability, name in _CARDS if gpu.capability >= capability), None)
    if card is None:
        raise GalpacaError(
            f"a {gpu.name} cannot be pretended: its attention depends on the lengths of examples",
            where="--trace",
            fix="a card of compute capability 8.0 or more",
        )
    fullest = candidate.likely_fullest
    count = 1 if fullest.is_only else 2
    request = Trace(
        overrides=list(overrides),
        config=candidate.content,
        num_tokens=fullest.num_tokens,
        num_targets=fullest.num_targets,
        num_examples=max(1, fullest.num_tokens // 32),
        longest_tokens=candidate.config.data.max_length,
        micro_batches=(count, count),
    )
    found = run_trace(request, card)
    model, sharding = candidate.model, candidate.sharding
    state = model.state_bytes * model.num_trained / sharding.num_shards + model.room_bytes
    allocated = MemoryParts(
        weights=found.start,
        gradients=max(0.0, found.between - found.start - state),
        optimizer_state=state,
        activations=max(0.0, found.peak - found.between),
        logits=0.0,
        copies=0.0,
    )
    return with_overheads(allocated, sharding)


def run_trace(request: Trace, card: str) -> Traced:
    """Traces in a process of its own.

    Args:
        card: of ``galpaca.fake_cuda.card.CARDS``.

    Raises:
        GalpacaError: no card can be pretended here, or the step cannot be traced.
    """
    given = json.dumps(asdict(request))
    done = subprocess.run(command(card, _MODULE), input=given, capture_output=True, text=True)
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["nothing was said"]
        # What the process says of a mistake is all of it; of anything else, the last line is the reason.
        why = "; ".join(said) if done.returncode == InputError.exit_code else said[-1]
        raise GalpacaError(
            "the step cannot be traced", where="galpaca estimate --trace", why=why, fix="leave out --trace"
        )
    return Traced(**json.loads(done.stdout.splitlines()[-1]))
