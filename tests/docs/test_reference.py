"""What is generated of the documentation is what the script writes, and leaves nothing out."""

import re
from pathlib import Path

import configuration_reference
import make_reference
import measured_figures
import pytest
from configuration_keys import keys_of
from conftest import REPOSITORY

from galpaca.app.config.composition import OPEN_MAPPINGS, compose

# Their keys are made up by whoever types them.
OPEN = {".".join(one) for one in OPEN_MAPPINGS}
PAGE = (REPOSITORY / "docs" / "configuration-reference.md").read_text(encoding="utf-8")


GENERATED = make_reference.pages()


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.name if page.parent != REPOSITORY else "README")
def test_a_page_is_what_the_script_writes(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == GENERATED[page], "run make reference"


@pytest.mark.parametrize("choice", ["strategy=single", "strategy=fsdp", "logger=wandb", "logger=csv"])
def test_every_key_has_a_row(choice: str) -> None:
    """All that one can type, of whatever group files."""
    from omegaconf import OmegaConf

    _, resolved = compose(["+experiment=demo", choice])
    groups = {*configuration_reference.SECTIONS, "strategy", "logger", "callbacks", "data.fields", *OPEN}
    keys = {key for key in keys_of(OmegaConf.create(resolved)) if key not in groups and not key.endswith("_target_")}
    described = set(re.findall(r"^\| `([\w.]+)` \|", PAGE, re.MULTILINE))
    assert keys <= described


def test_every_row_says_something() -> None:
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            assert len(line.rsplit("|", 2)[1].split()) >= 2 or line.startswith("| `trainer.num_nodes`"), line


def test_every_block_of_figures_has_its_mark() -> None:
    """A mark that is misspelt would leave a page without them, and nobody would see."""
    marked = [name for page in GENERATED for name in re.findall("<!-- measured: (.+) -->", page.read_text())]
    assert sorted(marked) == sorted(measured_figures.BLOCKS)


@pytest.mark.parametrize("benchmark", ["endurance", "preemption"])
def test_what_is_called_equal_was(benchmark: str) -> None:
    content = measured_figures.result(benchmark)
    assert content["failed"] == []
    assert {row["result"] for row in content["rows"]} == {"equal"}
