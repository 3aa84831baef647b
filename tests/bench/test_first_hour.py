"""The commands of the first hour, and of what others can prove, as bench/README.md shows them."""

import re
import shlex
import sys
from types import ModuleType

import pytest
from conftest import REPOSITORY

from bench.gpu import __main__ as gpu
from bench.life import __main__ as life
from bench.reference import __main__ as reference

PROGRAMS: dict[str, ModuleType] = {"gpu": gpu, "life": life, "reference": reference}
README = (REPOSITORY / "bench" / "README.md").read_text(encoding="utf-8")
LINE = re.compile(r"^ {4,}(?:srun .*)?python -m bench\.(gpu|life|reference) (.*)$", re.MULTILINE)
FIRST_HOUR = README.partition("## The first hour on one GPU")[2].partition("\n## ")[0]
# With what a measurement that begins at the last moment takes.
MINUTES = 8.0


@pytest.mark.parametrize(("program", "words"), LINE.findall(README))
def test_each_command_parses(program: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, *shlex.split(words)])
    given = PROGRAMS[program].arguments()
    assert str(given.out) == "DIR"


def test_each_of_the_first_hour_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = LINE.findall(FIRST_HOUR)
    assert len(commands) == 5
    for program, words in commands:
        monkeypatch.setattr(sys, "argv", [program, *shlex.split(words)])
        assert PROGRAMS[program].arguments().minutes <= MINUTES
