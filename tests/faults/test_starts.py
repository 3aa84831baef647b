"""SIGTERM before there is anything to save: one line, exit code 143, whatever the process was at."""

from pathlib import Path

import pytest
from faults.starts import Starts

# ``make endurance`` takes a hundred, until the first step. A signal that comes in the midst of an import is sent again
# every 20 ms until that is over, so that each of the later ones is heard all through torch and what builds on it.
IMPORTING = (0.7, 1.5, 3.0)  # seconds of the processor: Hydra, torch, Lightning


@pytest.mark.slow
@pytest.mark.parametrize("seconds", IMPORTING)
def test_a_start_that_is_stopped_ends_in_one_line(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path, seconds: float
) -> None:
    """While torch was imported it ended once with 134: the exception came out of C++. Others were lost in callbacks."""
    Starts(tmp_path, tokenizer_folder, records_file).stopped_after(seconds).check()
