"""Why a phase of a rehearsal failed, from the logs of its processes."""

import signal
from collections.abc import Mapping

from galpaca.app.rehearsal.plan import RehearsalPlan
from galpaca.errors import GalpacaError, InputError, StoppedBySignal

_LAST_LINES = 20


def failure(plan: RehearsalPlan, phase: str, codes: Mapping[int, int]) -> BaseException:
    """The error for a phase whose processes ended with these codes, at least one of them nonzero.

    Args:
        phase: description of the phase.
        codes: exit codes by rank.
    """
    logs = {rank: plan.log(rank) for rank in codes}
    texts = {rank: path.read_text(encoding="utf-8", errors="replace") for rank, path in logs.items() if path.is_file()}
    messages = {rank: found for rank, text in texts.items() if (found := _message(_last_phase(text)))}
    # One that says why, before those that ended because of it.
    rank = next(iter([*messages, *(rank for rank, code in codes.items() if code)]))
    code = codes[rank] or next(code for code in codes.values() if code)
    if StoppedBySignal.exit_code in codes.values():
        return StoppedBySignal(f"rehearsal stopped: {phase} received a signal")
    if rank in messages:
        kind = InputError if code == InputError.exit_code else GalpacaError
        prefix = "" if kind is InputError else "does not fit: "
        why = f"{messages[rank].why}\n  in: {phase}, on rank {rank}".strip()
        return kind(f"{prefix}{messages[rank].what}", where=logs[rank], why=why, fix=messages[rank].fix)
    if code < 0:
        return GalpacaError(
            f"does not fit: rank {rank} was terminated by {signal.Signals(-code).name}",
            where=logs[rank],
            why=f"{phase}; the system does that when host memory runs out",
            fix="request more memory for the job, or checkpoint.asynchronous=false, which needs no copy in host memory",
        )
    last = "\n    ".join(_last_phase(texts.get(rank, "")).splitlines()[-_LAST_LINES:])
    return GalpacaError(f"failed: {phase} ended with code {code} on rank {rank}", where=logs[rank], why=last)


def _last_phase(log: str) -> str:
    return log.rpartition("\n--- phase ")[2]


def _message(text: str) -> GalpacaError | None:
    """The last error in a log, as ``GalpacaError`` prints them."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(("error: ", "error on rank "))]
    if not starts:
        return None
    block = [lines[starts[-1]].partition(": ")[2]]
    for line in lines[starts[-1] + 1 :]:
        if not line.startswith("  "):
            break
        block.append(line)
    parts: dict[str, list[str]] = {"what": [block[0]], "why": [], "fix": []}
    under = "what"
    for line in block[1:]:
        label, colon, rest = line.strip().partition(": ")
        if line.startswith(f"  {label}") and colon and label in ("why", "fix"):
            under, line = label, rest
        parts[under].append(line)
    what, why, fix = ("\n".join(lines) for lines in parts.values())
    return GalpacaError(what, why=why, fix=fix)
