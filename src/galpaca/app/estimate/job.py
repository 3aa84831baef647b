"""The lines of a run's job: how long, how much memory, and when to be warned of its end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from galpaca.app.cluster.sbatch import SCRIPTS, job_line
from galpaca.app.estimate.candidate import Candidate
from galpaca.estimate.duration import time_limit

_GIB = 1 << 30
# Of the scripts in slurm/; and the least between the warning and the end that a larger one begins with.
_SIGNAL_SECONDS, _ROUND_SECONDS = 180, 60
_HOST_MARGIN, _ROUND_GIB = 1.25, 10


def job(candidate: Candidate, overrides: Sequence[str]) -> list[str]:
    """Commands for a shell, from the repository's root; none where its scripts are not there."""
    if not SCRIPTS.is_dir():
        return []
    _, high = candidate.hours
    gib = math.ceil(_HOST_MARGIN * candidate.host_bytes / _GIB / _ROUND_GIB) * _ROUND_GIB
    options = [f"--time={time_limit(3600 * high)}", f"--mem={gib}G"]
    if (seconds := _warning_seconds(candidate)) > _SIGNAL_SECONDS:
        options.append(f"--signal=USR1@{seconds}")
    return ["source slurm/site.env", job_line(overrides, candidate.config, options)]


def _warning_seconds(candidate: Candidate) -> int:
    """From the warning to the end: a step, and the last checkpoint, twice over."""
    needed = 2 * (candidate.step_seconds + candidate.save_seconds)
    return max(_SIGNAL_SECONDS, math.ceil(needed / _ROUND_SECONDS) * _ROUND_SECONDS)
