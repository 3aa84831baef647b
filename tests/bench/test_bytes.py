"""A step's bytes by part: which kernel counts as what, and a row as it is saved."""

import json
from typing import Any

import pytest
from conftest import REPOSITORY, OnCard

from bench.bytes import fsdp
from bench.bytes.parts import Parts, of_operations, of_program, of_update
from bench.bytes.what_if import what_if
from bench.bytes.workload import mean_workload
from galpaca.fake_cuda.program import Launch, Program
from galpaca.fake_cuda.schema_bytes import Moved

CAST = frozenset({"prims.convert_element_type.default"})
SUM = frozenset({"aten.sum.dim_IntList", *CAST})


def launch(name: str, ops: frozenset[str], moved: int, *, library: bool = False, fixed: bool = False) -> Launch:
    return Launch(name, ops, moved, library, fixed)


def test_kernels_of_a_program() -> None:
    launches = (
        launch("aten.mm.out", frozenset({"aten.mm.default"}), 1, library=True),
        launch("torch_attn._varlen_attn.default", frozenset(), 2, library=True),
        launch("op1", CAST, 10, fixed=True),
        launch("op2", CAST, 100),  # of activations
        launch("op3", SUM, 1_000, fixed=True),  # the end of a bias's gradient
        launch("aten.sort.default", frozenset(), 10_000, library=True),
    )
    assert of_program(Program(is_backward=False, launches=launches)) == Parts(elementwise=11_100, casts=10)


def test_single_operations() -> None:
    weight, activation = (8, 4), (16, 4)
    operations = [
        Moved("aten.mm.default", (activation, weight), 1, 1),
        Moved("aten._to_copy.default", (weight, weight), 10, 10),
        Moved("aten._to_copy.default", (activation, activation), 100, 100),
        Moved("aten.add_.Tensor", (weight, weight, weight), 1_000, 1_000),
        Moved("aten.add.Tensor", (activation, activation, activation), 10_000, 10_000),
    ]
    assert of_operations(operations, [weight]) == Parts(elementwise=20_200, casts=20, accumulation=2_000)


def test_an_update_compiled_or_not() -> None:
    program = Program(is_backward=False, launches=(launch("op0", frozenset(), 5),))
    operations = [Moved("aten.linalg_vector_norm.default", (), 1, 0), Moved("aten._fused_adamw_.default", (), 10, 10)]
    assert of_update(operations, [program]) == Parts(norm=1, update=25)


def test_fsdp_on_two_ranks() -> None:
    """A model of one parameter in a layer: by hand, from FSDP's source."""
    found = fsdp.around_layers(1, 1, micro_batches=2, ranks=2)
    assert found == Parts(casts=2 * (6 * 2 / 2 + 6), accumulation=2 * (4 + 8 + 8 / 2) + 12 / 2)


def test_the_published_recipe_is_one_micro_batch_on_four_ranks() -> None:
    assert mean_workload(4_096, ranks=1).micro_batches == 4
    assert mean_workload(4_096, ranks=4).micro_batches == 1
    assert mean_workload(8_192, ranks=1).micro_batches == 2


@pytest.fixture(scope="module")
def rows(on_card: OnCard) -> list[dict[str, Any]]:
    setting = {"shape": "125m", "precision": "bf16-mixed", "strategy": "single", "tokens_per_micro_batch": 4_096}
    return on_card("h200", "bench.bytes.count", json.dumps([setting]))


@pytest.mark.slow
class TestARow:
    def test_what_is_known_of_it_without_counting(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            billions, later = row["parameters"] / 1e9, row["micro_batches"] - 1
            tied = 4 * row["micro_batches"] * 3 * 50_000 * 768 / 1e9  # of the head and the embedding, in each backward
            assert row["gigabytes"]["norm"] == pytest.approx(4 * billions, rel=0.01)
            assert row["gigabytes"]["accumulation"] == pytest.approx(12 * billions * later + tied, rel=0.01)
            assert row["gigabytes"]["casts"] == pytest.approx(12 * billions * row["micro_batches"], rel=0.02)

    def test_fused_adamw_and_clipping(self, rows: list[dict[str, Any]]) -> None:
        (row,) = (row for row in rows if row["moments"] == "float32")
        assert row["gigabytes"]["update"] <= (28 + 8) * row["parameters"] / 1e9 * 1.01
        assert row["gigabytes"]["total"] == pytest.approx(
            sum(value for name, value in row["gigabytes"].items() if name != "total"), abs=0.05
        )

    def test_what_if_changes_what_it_says(self, rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["moments"] == "float32")
        copies, products, qkv = what_if(row)
        assert copies["gigabytes"]["casts"] < row["gigabytes"]["casts"]
        assert copies["gigabytes"]["update"] == pytest.approx(
            row["gigabytes"]["update"] + 2 * row["parameters"] / 1e9, abs=0.02
        )
        assert products["gigabytes"]["accumulation"] < row["gigabytes"]["accumulation"]
        assert 0 < row["gigabytes"]["total"] - qkv["gigabytes"]["total"] < row["gigabytes"]["elementwise"]
        assert all(one["if"].startswith("if ") for one in (copies, products, qkv))


def test_saved_rows_have_what_reports_read() -> None:
    """The keys of the newest committed file."""
    *_, path = sorted((REPOSITORY / "bench" / "results").glob("*_bytes_*.json"))
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    keys = {"shape", "precision", "strategy", "tokens_per_micro_batch", "moments", "gigabytes"}
    parts = {"elementwise", "casts", "accumulation", "norm", "update", "total"}
    assert all(keys <= row.keys() and row["gigabytes"].keys() == parts for row in rows)
    assert len(rows) == 3 * 2 * 2 * 2 * 2
