"""Which rank is late, from what ranks tell of themselves."""

from pathlib import Path

import pytest

from galpaca.runs.stacks import StackReport, note_stopped, read_reports, verdict, write_report

WAITS = "all_gather (/lib/torch/distributed/c10d.py:7)"


def report(rank: int, passed: int = 5, place: str = "step 2: backward", frame: str = WAITS) -> StackReport:
    return StackReport(rank, "node1", 100 + rank, passed, place, frame, 61.0)


@pytest.mark.parametrize(
    ("reports", "silent", "message"),
    [
        (
            [report(0), report(1, 3, "step 2: forward")],
            {},
            "rank 1 on node1 (process 101) is late: at 'step 2: forward'",
        ),
        ([report(0), report(1, frame="load (data.py:1)")], {}, "rank 1 on node1 (process 101) is late"),
        ([report(0), report(1)], {}, "no rank is late, all 2 wait at 'step 2: backward'"),
        ([report(0, frame="a (b.py:1)"), report(1, frame="a (b.py:1)")], {}, "no rank is late"),
        ([report(0)], {}, "it is at 'step 2: backward'"),
        ([report(0)], {1: "on node2 does not respond"}, "rank 1 on node2 does not respond"),
    ],
)
def test_the_verdict(reports: list[StackReport], silent: dict[int, str], message: str, tmp_path: Path) -> None:
    assert verdict(reports, silent, tmp_path).startswith(message)


def test_a_rank_that_was_stopped_is_late_however_far_it_came_since(tmp_path: Path) -> None:
    note_stopped(tmp_path, 1)
    assert verdict([report(0), report(1, passed=9)], {}, tmp_path) == "rank 1 was stopped (SIGSTOP)"


def test_reports_come_back_with_the_stacks_below_them(tmp_path: Path) -> None:
    write_report(tmp_path, report(3))
    write_report(tmp_path, report(1))
    assert read_reports(tmp_path) == [report(1), report(3)]
    assert "test_reports_come_back" in (tmp_path / "rank-00003.txt").read_text(encoding="utf-8")
