"""Starts modules of tests in processes that have a pretended card: see ``galpaca.fake_cuda``."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, MadeOnce

from galpaca.errors import InputError
from galpaca.fake_cuda import library
from galpaca.fake_cuda.process import command

# It compiles for about ten seconds a case.
_LIMIT_SECONDS = 600


def built_library(folder: Path) -> Path:
    """Builds the library below a folder, or skips, unless ``GALPACA_TEST_COMPILER=required``."""
    if library.has_own_runtime():
        pytest.skip("needs a build of torch for the CPU: make venv TORCH_INDEX=https://download.pytorch.org/whl/cpu")
    try:
        library.built(folder / "galpaca" / "fake_cuda")
    except InputError as error:
        if os.environ.get("GALPACA_TEST_COMPILER") == "required":
            pytest.fail(str(error))
        pytest.skip(str(error))
    return folder


def start(cache: Path, card: str, module: str, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(cache)}
    line = command(card, module, *arguments)
    pipe = subprocess.PIPE
    return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=environment, stdin=subprocess.DEVNULL)


def finished(process: subprocess.Popen[str]) -> Any:
    """The JSON of the last line that a process prints; it must succeed."""
    try:
        out, err = process.communicate(timeout=_LIMIT_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def looked(made_once: MadeOnce, cache: Path, name: str, cases: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What the microscope sees of cases by card, all cards at once; once for all workers, an error too."""

    def make(folder: Path) -> None:
        arguments = {card: json.dumps(list(of_card)) for card, of_card in cases.items()}
        running = {card: start(cache, card, "fake_cuda.microscope", text) for card, text in arguments.items()}
        found: dict[str, Any] = {}
        for card, process in running.items():
            try:
                found[card] = finished(process)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                found["error"] = str(error)
        (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")

    seen = json.loads((made_once(name, make) / "found.json").read_text(encoding="utf-8"))
    if "error" in seen:
        pytest.fail(seen["error"])
    return seen
