"""The lines of a run's job: how long, how much memory, and when to be warned of its end."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator, Sequence

from galpaca.app.cluster.sbatch import job_line, job_options, job_script
from galpaca.app.estimate.candidate import Candidate
from galpaca.app.estimate.run_time import save_seconds
from galpaca.estimate.duration import time_to_ask

_GIB = 1 << 30
_HOST_MARGIN, _ROUND_GIB, _ROUND_SECONDS = 1.25, 10, 60
# Where a site says how memory is requested, or that it is not.
_MEMORY_VARIABLE = "GALPACA_MEMORY_REQUEST"


def job(candidate: Candidate, overrides: Sequence[str]) -> list[str]:
    """Commands for a shell, from the repository's root; none for a run that does not fit, or without its scripts."""
    if candidate.verdict == "does not fit" or not job_script(overrides, candidate.config).is_file():
        return []
    words = shlex.split(job_line(overrides, candidate.config, list(_options(candidate, overrides))))
    # Nothing is prepared yet: where runs go, slurm/site.env says.
    is_named = any(word.startswith("run.root=") for word in overrides)
    return ["source slurm/site.env", shlex.join(word for word in words if is_named or not word.startswith("run.root="))]


def _options(candidate: Candidate, overrides: Sequence[str]) -> Iterator[str]:
    """Of sbatch, where the script's own are too little; time is the estimate's, since a short job starts sooner."""
    own = job_options(overrides, candidate.config)
    yield f"--time={time_to_ask(3600 * candidate.hours[1])}"
    gib = math.ceil(_HOST_MARGIN * candidate.host_bytes / _GIB / _ROUND_GIB) * _ROUND_GIB
    if _MEMORY_VARIABLE not in os.environ and gib > _number(own.get("mem", "0")):
        yield f"--mem={gib}G"
    # From the warning to the end: a step and a checkpoint, twice over.
    needed = 2 * (candidate.step_seconds + save_seconds(candidate))
    seconds = math.ceil(needed / _ROUND_SECONDS) * _ROUND_SECONDS
    if seconds > _number(own.get("signal", "0").rpartition("@")[2]):
        yield f"--signal=USR1@{seconds}"


def _number(text: str) -> int:
    """Of GiB as the scripts have them, or of seconds; another unit counts as none."""
    digits = text.removesuffix("G")
    return int(digits) if digits.isdecimal() else 0
