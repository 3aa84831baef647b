"""The update of GALACTICA 6.7B's parameters on a card: what it moves, and that the host reads nothing of it."""

import json
from typing import Any

import pytest
from conftest import OnCard

from fake_cuda import cases
from fake_cuda.layers import committed, growth

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def looked(on_card: OnCard) -> dict[str, Any]:
    """All of them from one process, by name."""
    return on_card(cases.UPDATED_ON, "fake_cuda.updates", json.dumps(cases.UPDATES))


@pytest.fixture(params=cases.UPDATES, ids=cases.update_name)
def found(request: pytest.FixtureRequest, looked: dict[str, Any]) -> dict[str, Any]:
    name = cases.update_name(request.param)
    return {"name": f"{cases.UPDATED_ON} {name}", **request.param, **looked[name]}


def test_the_host_reads_nothing(found: dict[str, Any]) -> None:
    assert found["host_reads"] == []


def test_it_moves_no_more_than_it_did(found: dict[str, Any]) -> None:
    """A smaller number is written down by ``python scripts/make_moved_bytes.py``."""
    assert growth(committed()[found["name"]], found["moved_bytes"]) == {}


# Bytes of a parameter: weights and moments read and written, gradients read.
LIMITS = {"float32": 4 + 4 + 4 + 4 * 4, "bfloat16": 4 + 4 + 4 + 4 * 2}


def test_it_reads_and_writes_everything_once(found: dict[str, Any]) -> None:
    """Clipping, unscaling and random rounding are in the kernel; gradients are read once before, for their norm.

    As 34 operations it was 240 bytes with bfloat16 moments; torch's fused AdamW, with passes of their own for unscaling
    and clipping, up to 48 with float32 ones. The scalars of all 20 parameters are below a hundredth.
    """
    moved, num_parameters = found["moved_bytes"], found["num_parameters"]
    assert moved["update"] / num_parameters == pytest.approx(LIMITS[found["moments"]], abs=0.01)
    assert moved["norm"] / num_parameters == pytest.approx(4, abs=0.01)


def test_it_is_one_kernel_for_pieces_of_all_sizes(found: dict[str, Any]) -> None:
    """And, where rounding is random, one that draws the seeds."""
    assert (found["programs"], found["launches"]) == (1, [1 if found["moments"] == "float32" else 2])
