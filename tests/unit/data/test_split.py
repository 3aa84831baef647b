"""The validation split is a property of each record, not of its place."""

import random
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from galpaca.data.hashes import content_hash, near_hash, value_hash
from galpaca.data.records import Record
from galpaca.data.split import TEST, TRAIN, VALIDATION, least_fractions, sides_of


def is_held_out(hashes: npt.NDArray[np.uint64], fraction: float) -> npt.NDArray[np.bool_]:
    return sides_of(hashes, fraction) == VALIDATION


FRACTIONS = [0.01, 0.05, 0.1, 0.5, 0.9]


def records(count: int, prefix: str = "") -> list[Record]:
    return [Record.of(f"{prefix}{number}", "", "answer") for number in range(count)]


def hashes(given: list[Record]) -> npt.NDArray[np.uint64]:
    return np.array([content_hash(record) for record in given], np.uint64)


def held_out(given: list[Record], fraction: float) -> dict[Record, bool]:
    return dict(zip(given, is_held_out(hashes(given), fraction).tolist(), strict=True))


def test_no_share_holds_out_nothing() -> None:
    assert not is_held_out(np.array([0, 1, 2**64 - 1], np.uint64), 0.0).any()


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_the_share_is_the_requested_one_on_many_records(fraction: float) -> None:
    many = hashes(records(20_000))
    five_deviations = 5 * (fraction * (1 - fraction) / len(many)) ** 0.5
    assert abs(is_held_out(many, fraction).mean() - fraction) < five_deviations


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_the_range_of_hashes_is_cut_where_it_should_be(fraction: float) -> None:
    edge = int(fraction * 2**64)
    around = np.array([0, edge - 2**20, edge + 2**20, 2**64 - 1], np.uint64)
    assert is_held_out(around, fraction).tolist() == [True, True, False, False]


def test_duplicates_never_straddle_the_split() -> None:
    """A copy of a held-out record among those trained on makes the validation loss a lie."""
    thrice = records(500) * 3
    random.Random(0).shuffle(thrice)
    mask = is_held_out(hashes(thrice), 0.3)
    sides: dict[Record, set[bool]] = {}
    for record, side in zip(thrice, mask.tolist(), strict=True):
        sides.setdefault(record, set()).add(side)
    assert len(sides) == 500
    assert all(len(found) == 1 for found in sides.values())
    assert mask.any()
    assert not mask.all()


def test_adding_records_and_another_order_move_none() -> None:
    """A shuffled split by place moves held-out records into the training data whenever the file grows."""
    old = records(1_000)
    before = held_out(old, 0.1)
    more = old + records(1_000, "new ")
    random.Random(1).shuffle(more)
    after = held_out(more, 0.1)
    assert {record: after[record] for record in old} == before


def test_a_larger_share_keeps_what_a_smaller_held_out() -> None:
    many = hashes(records(2_000))
    masks = [is_held_out(many, fraction) for fraction in FRACTIONS]
    assert all((small <= large).all() for small, large in pairwise(masks))


def test_the_same_on_every_machine() -> None:
    assert np.flatnonzero(is_held_out(hashes(records(60)), 0.1)).tolist() == [
        19,
        20,
        28,
        34,
    ]  # b2sum -l 64 below 2**64 // 10


@pytest.mark.parametrize(
    ("one", "other", "is_near"),
    [
        ("Benzene  is a ring.", "benzene is a RING", True),
        ("It doesn't dissolve !", "It doesn't dissolve", True),
        ("[START_SMILES]CCO[END_SMILES] is ethanol", "CCO is ethanol", True),
        ("C1CCCCC1", "c1ccccc1", False),
        ("x = -1", "x = 1", False),
        ("C(C)O", "CCO", False),
        ("10.5 g", "105 g", False),
    ],
)
def test_formulas_are_near_to_nothing_but_themselves(one: str, other: str, is_near: bool) -> None:
    """Without punctuation and case, cyclohexane was benzene."""
    near = near_hash(Record.of("What is it?", "", one)) == near_hash(Record.of("What is it?", "", other))
    assert near is is_near


def test_a_value_is_the_same_in_every_kind_of_file() -> None:
    """A table with a gap has whole numbers as fractions, and a CSV has all as texts."""
    assert value_hash(2.0) == value_hash(2) == value_hash("2 ")
    assert value_hash(2.5) != value_hash(2)


def test_a_test_is_behind_the_validation_and_moves_none_of_it() -> None:
    many = hashes(records(20_000))
    sides = sides_of(many, 0.1, 0.2)
    assert [
        abs((sides == side).mean() - share) < 0.02 for side, share in ((TRAIN, 0.7), (VALIDATION, 0.1), (TEST, 0.2))
    ]
    assert ((sides == VALIDATION) == is_held_out(many, 0.1)).all()
    assert not (sides_of(many, 0.0, 0.2) == VALIDATION).any()


@pytest.mark.parametrize("with_test", [False, True])
def test_the_least_fractions_leave_no_side_empty(with_test: bool) -> None:
    """Advice for few groups: what it says is tried on a thousand sets of them, the smallest included."""
    generator = np.random.default_rng(0)
    for count in [1, 2, 3, 4, 10] * 200:
        hashes = generator.integers(0, 2**64, count, np.uint64, endpoint=False)
        found = least_fractions(hashes, with_test=with_test)
        if found is None:
            assert count < 4 + with_test, "hashes of one hundredth are rare"
            continue
        sides = set(sides_of(hashes, *(round(one, 2) for one in found)).tolist())
        assert sides == {TRAIN, VALIDATION, *([TEST] if with_test else [])}
        assert sum(found) < 1
