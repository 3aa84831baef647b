"""SIGKILL at the writes of a checkpoint and in between: a run started again ends with the weights it would have had."""

from pathlib import Path

import pytest
from faults.kills import Bench, moments

NUM_WRITES, NUM_MOMENTS = 6, 2  # ``make endurance`` takes every write, and all strategies


@pytest.mark.slow
def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(
    tmp_path: Path, server: str, tokenizer_folder: Path, records_file: Path
) -> None:
    """Metrics hold every step once, and no more than an interval is lost; spread over all kinds of writes."""
    bench = Bench(tmp_path, server, tokenizer_folder, records_file, "single", asynchronous=False)
    bench.straight()
    writes = bench.writes(rank=0)
    kinds = {write.split()[0] for write in writes}
    assert {"mkdir", "open", "write", "fsync", "rename", "replace", "unlink", "rmdir"} <= kinds, kinds
    outcomes = [
        *(bench.killed_at_write(1 + n * (len(writes) - 1) // (NUM_WRITES - 1), rank=0) for n in range(NUM_WRITES)),
        *(bench.killed_after(seconds) for seconds in moments(NUM_MOMENTS, 0.4)),
    ]
    assert not any(outcome.finished_first for outcome in outcomes[:NUM_WRITES])
    assert {outcome.resumed_from for outcome in outcomes} >= {0, 2, 4}


@pytest.mark.slow
@pytest.mark.parametrize(("tuning", "strategy"), [("lora", "single"), ("qlora", "ddp")])
def test_runs_of_adapters_are_killed_in_the_midst_of_a_checkpoint_and_at_any_moment(
    tmp_path: Path, server: str, tokenizer_folder: Path, records_file: Path, tuning: str, strategy: str
) -> None:
    bench = Bench(tmp_path, server, tokenizer_folder, records_file, strategy, asynchronous=False, tuning=tuning)
    bench.straight()
    assert bench.killed_at_write(12, rank=0).resumed_from in (0, 2)
    bench.killed_after(moments(1, 0.4)[0])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_are_killed_together_in_the_midst_of_a_checkpoint(
    tmp_path: Path, server: str, tokenizer_folder: Path, records_file: Path, rank: int
) -> None:
    """One rank's file is there and the other's is not, or not whole."""
    bench = Bench(tmp_path, server, tokenizer_folder, records_file, "fsdp", asynchronous=True)
    bench.straight()
    assert bench.killed_at_write(12, rank).resumed_from in (0, 2)
