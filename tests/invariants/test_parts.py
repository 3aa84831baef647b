"""What all ranks hold of a sharded model is the whole model, once."""

import math
import sys
from pathlib import Path

import pytest
import torch
from conftest import run_ranks
from invariants.gradients.toy import make_model
from invariants.parts.worker import SHARDINGS

from galpaca.model.parts import whole_parts

NUM_RANKS = 4
WORKER = Path(__file__).parent / "parts" / "worker.py"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    run_ranks(server, [sys.executable, str(WORKER), str(folder)], folder, NUM_RANKS)
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
