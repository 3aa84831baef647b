"""Errors say what, where, why and how to fix it; all problems at one door are reported at once."""

import math
from collections.abc import Callable

import pytest

from galpaca.errors import SHOWN_PROBLEMS, GalpacaError, InputError, InputErrors, Problems, StoppedBySignal, first_line


def collected(count: int, fix: str = "the same for all") -> InputError:
    problems = Problems()
    for number in range(count):
        problems.add(f"problem {number}.", where=f"place {number}", fix=fix.format(number))
    with pytest.raises(InputError) as caught:
        problems.raise_any()
    return caught.value


def test_an_error_tells_what_where_why_and_fix() -> None:
    error = InputError("it is wrong", where="file, line 3", why="it must be right", fix="write it right")
    assert str(error) == "file, line 3: it is wrong\n  why: it must be right\n  fix: write it right"


def test_an_error_leaves_out_what_it_does_not_know() -> None:
    assert str(GalpacaError("it is wrong")) == "it is wrong"
    assert str(GalpacaError("it is wrong", fix="mend it")) == "it is wrong\n  fix: mend it"


def test_exit_codes_tell_the_users_mistake_from_ours() -> None:
    assert GalpacaError("").exit_code == 1
    assert InputError("").exit_code == 2
    assert InputErrors([InputError("")]).exit_code == 2
    assert StoppedBySignal.exit_code == 143


def test_no_problem_raises_nothing() -> None:
    Problems().raise_any()


def test_one_problem_is_reported_as_itself() -> None:
    error = collected(1)
    assert not isinstance(error, InputErrors)
    assert (error.what, error.where) == ("problem 0.", "place 0")


@pytest.mark.parametrize("fix", ["the same for all", "fix {}"])
def test_all_problems_are_reported_at_once_up_to_the_limit(fix: str) -> None:
    error = collected(SHOWN_PROBLEMS, fix)
    text = str(error)
    for number in range(SHOWN_PROBLEMS):
        assert text.count(f"place {number}: problem {number}.") == 1
    assert "more" not in text


@pytest.mark.parametrize("fix", ["the same for all", "fix {}"])
def test_the_first_20_are_shown_and_all_are_counted(fix: str) -> None:
    error = collected(57, fix)
    assert isinstance(error, InputErrors)
    text = str(error)
    assert error.count == 57
    assert text.startswith("57 problems:\n")
    assert "problem 19." in text
    assert "problem 20." not in text
    assert "... and 37 more" in text


def test_a_fix_that_all_share_is_reported_once_at_the_end() -> None:
    lines = ["  place 0: problem 0.", "  place 1: problem 1.", "  fix: the same for all"]
    assert str(collected(2)) == "\n".join(["2 problems:", *lines])


def test_each_problem_keeps_a_fix_of_its_own() -> None:
    text = str(collected(3, "fix {}"))
    lines = [f"  place {number}: problem {number}.\n    fix: fix {number}" for number in range(3)]
    assert text == "\n".join(["3 problems:", *lines])


def test_a_million_problems_cost_no_memory() -> None:
    """A file with a problem on every line must not keep as many exceptions as it has lines."""
    problems = Problems()
    for number in range(10_000):
        problems.add("problem", where=number)
    assert problems.count == 10_000
    assert len(problems._kept) == SHOWN_PROBLEMS


def test_problems_found_elsewhere_are_taken_in_with_all_they_tell() -> None:
    problems = Problems()
    problems.extend([InputError("a", where="b", why="c", fix="d")])
    with pytest.raises(InputError) as caught:
        problems.raise_any()
    assert vars(caught.value) == {"what": "a", "where": "b", "why": "c", "fix": "d"}


def test_counts_below_one_are_problems_and_none_is_no_count() -> None:
    problems = Problems()
    problems.check_at_least_one("batch.", {"examples": 0, "max_tokens": -3, "max_steps": None, "max_epochs": 1})
    with pytest.raises(InputErrors) as caught:
        problems.raise_any()
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("batch.examples", "must be at least 1, got 0"),
        ("batch.max_tokens", "must be at least 1, got -3"),
    ]


@pytest.mark.parametrize(
    ("must_be", "number", "is_right"),
    [
        ("> 0", 0.0, False),
        ("> 0", math.inf, False),
        ("> 0", 1e-9, True),
        ("> 1", 1.0, False),
        (">= 0", 0.0, True),
        ("in [0, 1]", 1.0, True),
        ("in [0, 1)", 1.0, False),
        ("in (0, 1]", 0.0, False),
        ("at least 0", -1, False),
        ("at least 2", 2, True),
        ("in [0, 1]", math.nan, False),
        ("> 0", None, True),
    ],
)
def test_a_number_is_what_it_must_be(must_be: str, number: float | None, is_right: bool) -> None:
    problems = Problems()
    problems.check_number("optim.lr", number, must_be, "another")
    assert problems.count == (not is_right)
    if not is_right:
        assert str(problems.error()) == f"optim.lr: must be {must_be}, got {number}\n  fix: another"


def with_two_problems(act: Callable[[], object]) -> None:
    with Problems() as problems:
        problems.add("a")
        problems.add("b")
        act()


def test_problems_are_raised_at_the_end_of_their_context() -> None:
    with pytest.raises(InputErrors, match="2 problems"):
        with_two_problems(lambda: None)
    with pytest.raises(ZeroDivisionError):
        with_two_problems(lambda: 1 / 0)
    with Problems():
        pass


def test_a_choice_that_is_none_tells_those_there_are() -> None:
    problems = Problems()
    problems.check_choice("data.on_truncation", "keep", ("keep", "drop"))
    problems.check_choice("data.on_truncation", "kep", ("keep", "drop"))
    with pytest.raises(InputError, match="'kep'") as caught:
        problems.raise_any()
    assert caught.value.fix == "data.on_truncation=keep or drop"


def test_code_that_handles_exceptions_lets_a_signal_through() -> None:
    """``except Exception`` around a library's call would swallow the signal, and the run would go on."""
    assert not issubclass(StoppedBySignal, Exception)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "ValueError"),
        ("one\ntwo", "one"),
        ("\n  one\ntwo", "one"),
        (
            "Validation error for field 'hidden_size':\n    TypeError: expected int\nmore",
            "Validation error for field 'hidden_size': TypeError: expected int",
        ),
        ("nothing behind it:", "nothing behind it:"),
    ],
)
def test_the_first_line_of_a_librarys_error_says_something(text: str, line: str) -> None:
    """transformers 5 names the field in the first line, and what is wrong with it in the second."""
    assert first_line(ValueError(text)) == line
