"""Memory by the closed form of ``galpaca estimate`` against the project's own step, traced; and the timelines anew."""

import json
from dataclasses import asdict

import pytest
from conftest import OnCard

from bench.estimates import CARD, MODULE, TOLERANCE, Cell, cells
from bench.timelines.kinds import all_kinds
from bench.timelines.reduce import timeline
from galpaca.app.estimate.traced import Traced
from galpaca.estimate.timeline import read_all

# One of each strategy and tuning, small enough for every run; all others by ``make endurance``.
FEW = [
    Cell("galactica-125m", "fsdp", "full", "none", 4, 4_096, is_only=True),
    Cell("smollm2-135m", "ddp", "lora", "selective", 4, 1_024, is_only=False),
    Cell("smollm2-135m", "fsdp2", "qlora", "full", 8, 2_048, is_only=False),
]
ALL = list(cells())


@pytest.fixture(
    params=[
        *(pytest.param(cell, marks=pytest.mark.slow, id=cell.name) for cell in FEW),
        *(pytest.param(cell, marks=pytest.mark.endurance, id=cell.name) for cell in ALL),
    ]
)
def cell(request: pytest.FixtureRequest) -> Cell:
    found: Cell = request.param
    return found


def test_the_closed_form_is_what_is_traced(cell: Cell, on_card: OnCard) -> None:
    found = on_card(CARD, MODULE, json.dumps(asdict(cell.trace())))
    assert cell.closed() == pytest.approx(Traced(**found).peak, rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["opt, fsdp, full, wide, selective", "llama, single, qlora, wide, full"])
def test_a_timeline_made_anew_is_the_one_that_is_shipped(name: str, on_card: OnCard) -> None:
    """Else torch or the model's code has changed what a step takes: ``python -m bench.timelines``."""
    (kind,) = (kind for kind in all_kinds() if kind.name == name)
    _, windows, gradients = on_card(CARD, "bench.timelines.worker", json.dumps([asdict(kind)]))
    made = {"only": timeline(kind, windows["only"]), "last": timeline(kind, windows["last"], gradients)}
    assert json.loads(json.dumps(made)) == read_all()[name]
