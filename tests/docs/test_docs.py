"""What README and docs tell a reader to type, and where they point."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import REPOSITORY

from galpaca.app.composition import compose
from galpaca.app.config import config_folder
from galpaca.data.prompts import shipped_templates

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "slurm/README.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def train_commands() -> list[str]:
    lines = (line.strip() for page in PAGES for line in text_of(page).splitlines() if line.startswith("    "))
    return [line for line in lines if line.startswith("python train.py +experiment=") and "NAME" not in line]


@pytest.mark.parametrize("line", train_commands())
def test_every_train_command_composes(line: str) -> None:
    compose(shlex.split(line)[2:])


def test_there_are_train_commands_to_check() -> None:
    assert len(train_commands()) >= 3


@pytest.mark.parametrize("row", re.findall(r"\| `((?:\S+=\S+ ?)+)`", text_of(REPOSITORY / "docs" / "configuration.md")))
def test_every_common_change_composes(row: str) -> None:
    compose(["+experiment=galpaca67b", *shlex.split(row)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text_of(page)):
        assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_the_table_of_groups_is_complete() -> None:
    table = text_of(REPOSITORY / "docs" / "configuration.md")
    for path in config_folder().glob("*/*.yaml"):
        row = next(line for line in table.splitlines() if line.startswith(f"| `{path.parent.name}`"))
        name = path.stem.removeprefix("galactica") if path.parent.name == "model" else path.stem
        assert name in row, f"{path.parent.name}/{path.stem} is not in docs/configuration.md"


def test_every_template_is_documented() -> None:
    for name in shipped_templates():
        assert f"`{name}`" in text_of(REPOSITORY / "docs" / "data.md")


def test_make_targets_of_the_readme_exist() -> None:
    makefile = text_of(REPOSITORY / "Makefile")
    for target in re.findall(r"^    make (\w+)", text_of(REPOSITORY / "README.md"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
