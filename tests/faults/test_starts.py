"""SIGTERM before there is anything to save: one line, exit code 143, whatever the process was at."""

from pathlib import Path

import pytest
from faults.kills import moments
from faults.starts import Starts

NUM_MOMENTS = 5  # ``make endurance`` takes a hundred


@pytest.mark.slow
def test_a_start_that_is_stopped_ends_in_one_line(tmp_path: Path, tokenizer_folder: Path, records_file: Path) -> None:
    """While torch was imported it ended once with 134: the exception came out of C++. Others were lost in callbacks."""
    starts = Starts(tmp_path, tokenizer_folder, records_file)
    for seconds in moments(NUM_MOMENTS, starts.seconds()):
        starts.stopped_after(seconds).check()
