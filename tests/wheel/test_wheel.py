"""The wheel holds what an installation needs and nothing else, and runs far from the repository.

The fresh environment borrows the installed dependencies: galpaca alone is in it, and the repository is on no path.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Seconds instead of the demo's minute.
SMALL = ("model.hidden_size=32", "model.num_heads=4", "model.ffn_size=64", "release.max_new_tokens=8")

Run = Callable[..., str]


def finished(command: list[str | Path], folder: Path) -> str:
    """Standard output of a command that must succeed, in a folder, with no word from here about where modules are."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, cwd=folder, env=environment, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the version of the backend that pip would fetch, without fetching it."""
    folder = tmp_path_factory.mktemp("wheel")
    backend = f"hatchling=={importlib.metadata.version('hatchling')}"
    assert tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"] == [backend]
    finished([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder], REPOSITORY)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment with the wheel in it."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    install = ["install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    finished([sys.executable, "-m", "pip", "--python", str(python), *install], environment)
    # Paths in a .pth file are added, but the .pth files there are not read: an editable installation stays out.
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return python.parent


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    """Runs a program of the environment in an empty folder."""
    return lambda program, *arguments: finished([installed / program, *arguments], tmp_path)


def files_below(folder: Path, prefix: str) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {f"{prefix}/{path.as_posix()}" for path in found if "__pycache__" not in path.parts}


def test_it_holds_the_package_and_its_configuration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = {name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        commands = archive.read(about["entry_points.txt"]).decode()
    assert names == files_below(REPOSITORY / "src" / "galpaca", "galpaca") | files_below(
        REPOSITORY / "conf", "galpaca/conf"
    )
    # By name too, since both sides of the line above might lack them.
    assert names >= {
        "galpaca/conf/train.yaml",
        "galpaca/data/templates/alpaca.yaml",
        "galpaca/demo/records.json",
        "galpaca/demo/tokenizer/tokenizer.json",
        "galpaca/fake_cuda/cpp/guard.cpp",
        "galpaca/fake_cuda/cpp/hooks.cpp",
        "galpaca/py.typed",
        "galpaca/report/assets/page.html",
        "galpaca/report/assets/uplot.min.js",
    }
    assert {"licenses/LICENSE", "licenses/src/galpaca/report/assets/uplot.LICENSE"} <= about.keys()
    assert "galpaca = galpaca.cli:main" in commands


def test_it_is_what_runs(run: Run, installed: Path) -> None:
    where = (
        "import galpaca, galpaca.app.config.schema; print(galpaca.__file__, galpaca.app.config.schema.config_folder())"
    )
    for path in run("python", "-c", where).split():
        assert Path(path).is_relative_to(installed.parent)


def test_help_and_inspect(run: Run, installed: Path, tmp_path: Path, demo_records: list[dict[str, str]]) -> None:
    assert "demo" in run("galpaca", "--help")
    (tmp_path / "records.json").write_text(json.dumps(demo_records[:3]))
    (tokenizer,) = installed.parent.glob("lib/python*/site-packages/galpaca/demo/tokenizer")
    shown = run("galpaca", "inspect", "records.json", "--tokenizer", str(tokenizer))
    assert demo_records[0]["output"] in shown


def test_a_short_demo(run: Run, tmp_path: Path) -> None:
    shown = run("galpaca", "demo", "trainer.max_steps=4", *SMALL)
    assert "of 40 answers match the record exactly" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    for name in ("model/model.safetensors", "model/README.md", "report.html"):
        assert (tmp_path / "runs" / "demo" / name).is_file()


def test_training_in_two_processes(run: Run, tmp_path: Path) -> None:
    """Lightning starts the second one by the name of the module that was started."""
    run("galpaca", "train", "+experiment=demo", "trainer.max_steps=2", "strategy=ddp", "trainer.devices=2", *SMALL)
    assert len((tmp_path / "runs" / "demo" / "metrics.jsonl").read_text().splitlines()) == 2
