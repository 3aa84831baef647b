"""What README and docs tell a reader to type, and where they point."""

import argparse
import re
from importlib.util import find_spec
from pathlib import Path
from pydoc import locate

import pytest
from configuration_keys import keys_of
from conftest import REPOSITORY
from floors.test_floors import DOORS, FLOORS
from omegaconf import OmegaConf
from pages import PAGES, Code, anchors, code, links, name_of, text_of, words

from galpaca.app.config.composition import OPEN_MAPPINGS, compose
from galpaca.app.config.schema import config_folder
from galpaca.cli import _parser
from galpaca.data.prompts import shipped_templates

CODE = code()

# Stands for something that a reader fills in: FILE, NAME, GROUP, N, $GALPACA_RUNS, <name>, ...
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]*\b(?!\.md)|\$|<|\.\.\.")


def galpaca_commands() -> list[Code]:
    return [one for one in CODE if "galpaca" in words(one.text)[:2] and words(one.text)[0] in ("galpaca", "srun")]


def arguments_of(one: Code) -> list[str]:
    found = words(one.text)
    return found[found.index("galpaca") + 1 :]


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (one for one in _parser()._actions if isinstance(one, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("one", galpaca_commands(), ids=str)
def test_every_galpaca_command_parses(one: Code, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command's own parser, without running it. A mention in a sentence may leave out what is not its point."""
    given = arguments_of(one)
    if not given or given == ["--help"]:
        return
    command = subcommands().get(given[0])
    assert command is not None, f"there is no galpaca {given[0]}"
    options = [word.partition("=")[0] for word in given[1:] if word.startswith("--")]
    unknown = [option for option in options if option not in command._option_string_actions]
    assert unknown == []
    if given[0] != "train" and (one.is_line or any(not word.startswith("-") for word in given[1:])):
        try:
            _parser().parse_args(given)
        except SystemExit:
            pytest.fail(f"galpaca refuses it: {capsys.readouterr().err.splitlines()[-1]}")


def train_commands() -> list[Code]:
    return [one for one in CODE if "train.py" in words(one.text)]


def composed_overrides(one: Code) -> list[str]:
    """What ``train.py`` or a command that takes the same gets, without Hydra's flags."""
    found = words(one.text)
    start = found.index("train.py") if "train.py" in found else found.index("galpaca") + 1
    given = [word for word in found[start + 1 :] if not word.startswith("-") and word != "job"]
    return [word.replace("$GALPACA_RUNS", "runs") for word in given]


TAKES_OVERRIDES = ("train", "prepare", "rehearse", "demo")
COMPOSED = [
    *train_commands(),
    *(one for one in galpaca_commands() if len(arguments_of(one)) > 1 and arguments_of(one)[0] in TAKES_OVERRIDES),
]


@pytest.mark.parametrize("one", [one for one in COMPOSED if "=" in one.text], ids=str)
def test_every_run_composes(one: Code) -> None:
    overrides = composed_overrides(one)
    if not any(PLACEHOLDER.search(word) for word in overrides):
        compose(overrides)


def test_there_is_much_to_check() -> None:
    """A reader that finds nothing would hold nothing."""
    assert len(galpaca_commands()) >= 40
    assert len(train_commands()) >= 8
    assert len(OVERRIDES) >= 40
    assert sum(len(links(page)) for page in PAGES) >= 60
    assert len(PATHS) >= 60


# A bare word with a Python constant, such as weights_only=True, is an argument of Python's.
OVERRIDE = re.compile(r"(?!\w+=(True|False|None)$)[+~]{0,2}[a-z][\w.]*=\S+")
GROUPS = sorted(path.name for path in config_folder().iterdir() if path.is_dir())
# What overrides need beside them, to be a run.
BASE = {"data.path": "x", "model.tokenizer": "x", "run.name": "x"}


def overrides() -> list[Code]:
    """Spans and lines that are overrides and nothing else, or the end of a command that takes some."""
    found: dict[str, Code] = {}
    for one in CODE:
        given = [word for word in words(one.text) if OVERRIDE.fullmatch(word)]
        if given and (len(given) == len(words(one.text)) or words(one.text)[0] in ("sbatch", "srun", "python")):
            found.setdefault(" ".join(given), one._replace(text=" ".join(given)))
    return list(found.values())


OVERRIDES = overrides()


@pytest.mark.parametrize("one", OVERRIDES, ids=str)
def test_every_override_is_one(one: Code) -> None:
    """Its key is there, and it composes where its value is no placeholder."""
    given = [word.replace("$GALPACA_RUNS", "runs") for word in words(one.text)]
    whole = [word for word in given if not PLACEHOLDER.search(word.partition("=")[2])]
    named = [*whole, *(["data.path"] if any(word.startswith("data.mix.") for word in whole) else [])]
    base = [f"{key}={value}" for key, value in BASE.items() if not any(word.startswith(key) for word in named)]
    run = [] if any(word.startswith(("+experiment", "+recipe")) for word in whole) else ["+experiment=galpaca67b"]
    _, resolved = compose([*run, *whole, *base])
    known = {*GROUPS, *keys_of(OmegaConf.create(resolved))}
    requested = [word.partition("=")[0].lstrip("+~") for word in given if word not in whole]
    made_up = tuple(f"{group}.{key}." for group, key in OPEN_MAPPINGS)
    assert [key for key in requested if key not in known and not key.startswith(made_up)] == []


@pytest.mark.parametrize(
    "one",
    [one for one in CODE if words(one.text)[:1] in (["sbatch"], ["slurm/submit"]) and ".sbatch" in one.text],
    ids=str,
)
def test_every_job_script_is_there(one: Code) -> None:
    script = next(word for word in words(one.text) if word.endswith(".sbatch"))
    assert (REPOSITORY / script).is_file()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        path = page.parent / target if target else page
        assert path.exists(), f"{name_of(page)} points to {target}"
        if anchor:
            assert anchor in anchors(path), f"{name_of(page)} points to {target}#{anchor}"


FOLDERS = ("bench", "conf", "docs", "examples", "scripts", "slurm", "src", "tests")
# Made by the reader.
OWN_FILES = {"slurm/site.env"}


def paths() -> list[Code]:
    """Spans that look like a path of the repository, of its tests, or of the package."""
    return [one for one in CODE if not one.is_line and re.fullmatch(r"[\w.-]+(/[\w.*-]+)*/?", one.text) and _root(one)]


def _root(one: Code) -> Path | None:
    first, _, rest = one.text.partition("/")
    if first in FOLDERS and "/" in one.text and not re.search(r"(NAME|DATE|FILE)", one.text):
        return REPOSITORY
    if rest.endswith(".py") and (REPOSITORY / "tests" / first).is_dir():
        return REPOSITORY / "tests"
    if rest.endswith(".py") and (REPOSITORY / "src" / "galpaca" / first).is_dir():
        return REPOSITORY / "src" / "galpaca"
    return None


PATHS = paths()


@pytest.mark.parametrize("one", PATHS, ids=str)
def test_every_path_is_there(one: Code) -> None:
    root = _root(one)
    assert root is not None
    assert one.text in OWN_FILES or list(root.glob(one.text.rstrip("/"))), f"{one.text} is not in {root.name}"


@pytest.mark.parametrize("one", [one for one in CODE if re.fullmatch(r"galpaca(?!\.json)(\.\w+)+", one.text)], ids=str)
def test_every_name_of_the_package_is_there(one: Code) -> None:
    assert locate(one.text) is not None


@pytest.mark.parametrize("one", [one for one in CODE if "python -m bench." in one.text], ids=str)
def test_every_benchmark_is_there(one: Code) -> None:
    (name,) = re.findall(r"-m (bench\.\w+)", one.text)
    assert name == "bench.NAME" or find_spec(name)


@pytest.mark.parametrize("one", [one for one in CODE if words(one.text)[:1] == ["make"]], ids=str)
def test_every_make_target_is_there(one: Code) -> None:
    makefile = text_of(REPOSITORY / "Makefile")
    for target in words(one.text)[1:]:
        assert "=" in target or re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_table_of_groups_is_complete() -> None:
    table = text_of(REPOSITORY / "docs" / "configuration.md")
    for path in config_folder().glob("*/*.yaml"):
        row = next(line for line in table.splitlines() if line.startswith(f"| `{path.parent.name}`"))
        name = path.stem.removeprefix("galactica") if path.parent.name == "model" else path.stem
        assert name in row, f"{path.parent.name}/{path.stem} is not in docs/configuration.md"


def test_every_template_is_documented() -> None:
    for name in shipped_templates():
        assert f"`{name}`" in text_of(REPOSITORY / "docs" / "data.md")


ARCHITECTURE = REPOSITORY / "docs" / "design" / "0000-architecture.md"


def test_every_promise_names_the_tests_that_hold_it() -> None:
    rows = re.findall(r"^\| (\d)\. .*$", text_of(ARCHITECTURE), re.MULTILINE)
    assert rows == list("12345678")
    for line in re.findall(r"^\| \d\. .*$", text_of(ARCHITECTURE), re.MULTILINE):
        held_by = re.findall(r"`(tests/[\w/]+\.py)`", line)
        assert held_by
        assert all((REPOSITORY / path).is_file() for path in held_by)


def test_the_floors_of_the_page_are_those_of_the_code() -> None:
    shown = {
        name: int(floor) for floor, name in re.findall(r"^\| (\d) \| `(\w+)`", text_of(ARCHITECTURE), re.MULTILINE)
    }
    held = {package: number for number, packages in enumerate(FLOORS) for package in packages}
    doors = held.pop("doors")
    assert shown == {**held, "cli": doors}
    assert "cli" in DOORS
