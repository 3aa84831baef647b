"""docs/configuration-reference.md is what the code and conf/ say, and leaves no key out."""

import re
import sys

import pytest
from configuration_keys import keys_of
from conftest import REPOSITORY

from galpaca.app.config.composition import compose

sys.path.insert(0, str(REPOSITORY / "scripts"))
import make_reference

PAGE = (REPOSITORY / "docs" / "configuration-reference.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_script_writes() -> None:
    assert make_reference.page() == PAGE, "run make reference"


@pytest.mark.parametrize("choice", ["strategy=single", "strategy=fsdp", "logger=wandb", "logger=csv"])
def test_every_key_has_a_row(choice: str) -> None:
    """All that one can type, of whatever group files."""
    from omegaconf import OmegaConf

    _, resolved = compose(["+experiment=demo", choice])
    groups = {*make_reference.SECTIONS, "strategy", "logger", "callbacks", "data.fields"}
    keys = {key for key in keys_of(OmegaConf.create(resolved)) if key not in groups and not key.endswith("_target_")}
    described = set(re.findall(r"^\| `([\w.]+)` \|", PAGE, re.MULTILINE))
    assert keys <= described


def test_every_row_says_something() -> None:
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            assert len(line.rsplit("|", 2)[1].split()) >= 2 or line.startswith("| `trainer.num_nodes`"), line
