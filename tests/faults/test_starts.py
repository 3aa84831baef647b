"""SIGTERM before there is anything to save: one line, exit code 143, whatever the process was at."""

from pathlib import Path

import pytest
from faults.kills import moments
from faults.starts import Starts

# ``make endurance`` takes a hundred in all. A signal that comes in the midst of an import is sent again every 20 ms until
# that is over, so that each of the later ones is heard all through torch and what builds on it.
IMPORTING = (0.7, 1.5, 3.0)  # seconds of the processor: Hydra, torch, Lightning
NUM_MOMENTS = 5  # afterwards


@pytest.mark.slow
@pytest.mark.parametrize("seconds", IMPORTING)
def test_a_start_that_is_stopped_while_it_imports_ends_in_one_line(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path, seconds: float
) -> None:
    """While torch was imported it ended once with 134: the exception came out of C++."""
    Starts(tmp_path, tokenizer_folder, records_file).stopped_after(seconds).check()


@pytest.mark.slow
def test_a_start_that_is_stopped_ends_in_one_line(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path, server: str
) -> None:
    """While it composes, encodes and builds: exceptions were lost in callbacks."""
    starts = Starts(tmp_path, tokenizer_folder, records_file, server)
    for seconds in moments(NUM_MOMENTS, starts.seconds()):
        starts.stopped_after(seconds).check()
