"""Reads by the host that somebody plants are found; what is not found here would not be found in a step."""

import pytest
from conftest import OnCard

pytestmark = pytest.mark.slow

_SCALAR = "aten._local_scalar_dense.default"
EXPECTED = {
    "item": [_SCALAR],
    "bool": [_SCALAR],
    "nonzero": ["aten.nonzero.default"],
    "mask": ["aten.index.Tensor"],
    "cpu": ["aten._to_copy.default to the host"],
    "list": [_SCALAR],
    "copy": ["aten.copy_.default to the host"],
    "nothing": [],
    "of_host": [],
    "loss": [_SCALAR],
}


def test_planted_reads(on_card: OnCard) -> None:
    assert on_card("h100", "fake_cuda.planted") == EXPECTED
