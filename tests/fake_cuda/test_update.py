"""The update of parameters on a card: what it moves, and that the host reads nothing of it."""

import json
from typing import Any

import pytest
from conftest import OnCard

from fake_cuda import cases
from fake_cuda.layers import committed, growth

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(on_card: OnCard) -> list[dict[str, Any]]:
    return on_card(cases.UPDATE_CARD, "fake_cuda.updates", json.dumps(cases.UPDATES))


@pytest.fixture(params=range(len(cases.UPDATES)), ids=[cases.update_name(case) for case in cases.UPDATES])
def found(request: pytest.FixtureRequest, seen: list[dict[str, Any]]) -> dict[str, Any]:
    case = cases.UPDATES[request.param]
    return {"name": f"{cases.UPDATE_CARD} {cases.update_name(case)}", **case, **seen[request.param]}


def test_the_host_reads_nothing(found: dict[str, Any]) -> None:
    assert found["host_reads"] == []


def test_it_moves_no_more_than_it_did(found: dict[str, Any]) -> None:
    """A smaller number is written down by ``python scripts/make_moved_bytes.py``."""
    assert growth(committed()[found["name"]], found["moved_bytes"]) == {}


def test_torch_fused_update_is_counted_by_its_schema(found: dict[str, Any]) -> None:
    """Four tensors read and three written, 28 bytes a parameter, and at most 4 for the norm, 8 for clipping and 8
    for unscaling beside it.
    """
    if found["moments"] == "float32":
        beside = found["moved_bytes"]["update"] / found["num_parameters"] - 28
        assert 0 <= beside <= 4 + 8 + (8 if found["precision"] == "16-mixed" else 0) + 0.01
