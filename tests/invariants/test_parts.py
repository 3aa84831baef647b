"""What all ranks hold of a sharded model is the whole model, once."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from invariants.gradients.toy import make_model
from invariants.parts.worker import SHARDINGS

from galpaca.training.parts import whole_parts

NUM_RANKS = 4
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={NUM_RANKS}"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "invariants.parts.worker", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_all_parts_together_are_the_model(saved: Path, sharding: str) -> None:
    """No value missing or twice, in its place, whoever keeps copies; and the ranks share the work."""
    values = {name: torch.full((parameter.numel(),), math.nan) for name, parameter in make_model().named_parameters()}
    held = []
    for rank in range(NUM_RANKS):
        parts = torch.load(saved / f"{sharding}-{rank}.pt", weights_only=True)
        held.append(sum(stop - start for _, _, start, stop, _ in parts))
        for name, _, start, stop, piece in parts:
            assert values[name][start:stop].isnan().all(), f"{name} twice"
            values[name][start:stop] = piece
    for name, parameter in make_model().named_parameters():
        assert torch.equal(values[name].view_as(parameter), parameter), name
    assert max(held) <= 1.3 * sum(held) / NUM_RANKS


def test_shares_of_a_part_are_the_part() -> None:
    """Also where there are more ranks than values."""
    for part in whole_parts(make_model()):
        for count in (1, 2, 7, 64):
            shares = [part.share(index, count) for index in range(count)]
            assert [share.start for share in shares] == [part.start, *(share.stop for share in shares[:-1])]
            assert shares[-1].stop == part.stop
            together = torch.cat([share.of(share.parameter) for share in shares])
            assert torch.equal(together, part.parameter.detach().view(-1))
