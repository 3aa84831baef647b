"""The stand-in for CUDA's runtime: built once for this torch, and loaded into this process."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

from galpaca.errors import InputError
from galpaca.files.build_once import build_folder_once

_SOURCES = sorted((Path(__file__).parent / "cpp").glob("*.cpp"))
_COMPILER = "g++"
_NAME = "libfake_cuda.so"
_SECONDS = 300
_OWN_RUNTIMES = ("libtorch_cuda.so", "libtorch_hip.so")


def load(cache: Path | None = None) -> None:
    """Makes torch believe, in this process and for good, that it has CUDA and one device.

    Args:
        cache: where the library is kept; default: the user's cache.

    Raises:
        InputError: it cannot be built, torch has a CUDA of its own, or is imported already.
    """
    if "torch" in sys.modules:  # which looks for CUDA while it is imported, once
        raise _refused("this process has imported torch", "it has found no card, and keeps that", "a new process")
    ctypes.CDLL(str(built(cache or _user_cache())))


def built(cache: Path) -> Path:
    """The library, built unless it is there.

    Raises:
        InputError: torch has a CUDA of its own, there is no compiler, or it fails.
    """
    if has_own_runtime():
        raise _refused("torch is built for cards", "the runtime that it has cannot be replaced", "a build for the CPU")
    compiler = shutil.which(_COMPILER)
    if compiler is None:
        raise _refused(f"no compiler {_COMPILER}", "torch is made to see a device by 100 lines of C++", _INSTALL)
    folder = cache / _key(compiler)
    build_folder_once(folder, lambda partial: _compile(compiler, partial / _NAME), (folder / _NAME).is_file)
    return folder / _NAME


def has_own_runtime() -> bool:
    """Whether torch is a build for graphics cards."""
    return any((_torch_folder() / "lib" / name).exists() for name in _OWN_RUNTIMES)


_INSTALL = f"apt-get install {_COMPILER}"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "galpaca" / "fake_cuda"


def _torch_folder() -> Path:
    """Where torch lies, without importing it."""
    found = util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _key(compiler: str) -> str:
    """All that the library depends on: torch's version and place, the sources, the compiler."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    torch_is = [metadata.version("torch"), str(_torch_folder())]
    parts = [*torch_is, version, *(path.read_text(encoding="utf-8") for path in _SOURCES)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _compile(compiler: str, target: Path) -> None:
    headers, libraries = _torch_folder() / "include", _torch_folder() / "lib"
    # By the rpath, the very libraries that torch will load afterwards.
    links = [f"-L{libraries}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{libraries}"]
    flags = ["-std=c++20", "-O0", "-shared", "-fPIC", f"-I{headers}"]
    command = [compiler, *flags, *map(str, _SOURCES), *links, "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        error = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise _refused(f"{_COMPILER} fails", error, f"{_INSTALL}, or another version of torch")


def _refused(what: str, why: str, fix: str) -> InputError:
    return InputError(f"no card can be pretended: {what}", where="galpaca.fake_cuda", why=why, fix=fix)
