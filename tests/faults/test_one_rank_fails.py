"""A rank that fails alone ends, so that its launcher sees it, whatever the others are waiting for."""

from pathlib import Path
from typing import Any

import pytest
from conftest import command, completed, start_ranks

_SECONDS = 60  # it takes two; waiting for the others would take ten minutes


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_alone_ends(
    tmp_path: Path, tokenizer_folder: Path, records_file: Path, server: str, rank: int
) -> None:
    """Under NCCL its interpreter waited for the others and the others for it, until the job was taken for a hang."""
    line = command(tmp_path, tokenizer_folder, records_file, "strategy=fsdp", "trainer.devices=2")
    hook: dict[str, Any] = {"hook": "faults.crash:fail_and_linger", "hook_arguments": (2, rank)}
    processes = start_ranks(server, line, tmp_path, 2, **hook)
    try:
        code = processes[rank].wait(_SECONDS)
    finally:
        for process in processes:
            process.kill()
    failed = completed(processes[rank])
    completed(processes[1 - rank])
    assert code == 1, failed.stderr
    assert "RuntimeError: this rank alone" in failed.stderr
