"""The stand-in for CUDA's runtime is built once, and says why where it cannot be."""

import os
from pathlib import Path

import pytest

from galpaca.errors import InputError
from galpaca.fake_cuda import library


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that copies its name into its output, and counts its calls; torch is a build for the CPU."""
    path = tmp_path / "bin" / "g++"
    path.parent.mkdir()
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo "g++ 1"; exit; fi\n'
        f'echo call >>"{tmp_path}/calls"\n'
        'while [ "$1" != -o ]; do shift; done; echo library >"$2"\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
    monkeypatch.setattr(library, "has_own_runtime", lambda: False)
    return path


def test_it_is_built_once(compiler: Path, tmp_path: Path) -> None:
    first = library.built(tmp_path / "cache")
    assert library.built(tmp_path / "cache") == first
    assert first.read_text() == "library\n"
    assert (tmp_path / "calls").read_text() == "call\n"


def test_another_compiler_builds_another(compiler: Path, tmp_path: Path) -> None:
    first = library.built(tmp_path / "cache")
    compiler.write_text(compiler.read_text().replace("g++ 1", "g++ 2"))
    assert library.built(tmp_path / "cache") != first


def test_other_sources_build_another(compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = library.built(tmp_path / "cache")
    changed = tmp_path / "changed.cpp"
    changed.write_text("// changed")
    monkeypatch.setattr(library, "_SOURCES", [changed])
    assert library.built(tmp_path / "cache") != first


def test_a_compiler_that_fails(compiler: Path, tmp_path: Path) -> None:
    compiler.write_text("#!/bin/sh\n[ $1 = --version ] && exit\necho 'a.cpp:1: error: no such header' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"g\+\+ fails") as caught:
        library.built(tmp_path / "cache")
    assert caught.value.why == "a.cpp:1: error: no such header"
    assert list(tmp_path.glob("cache/**/*.so")) == []


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(library, "has_own_runtime", lambda: False)
    with pytest.raises(InputError, match=r"no compiler g\+\+") as caught:
        library.built(tmp_path / "cache")
    assert caught.value.fix == "apt-get install g++"


def test_a_torch_for_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "has_own_runtime", lambda: True)
    with pytest.raises(InputError, match="torch is built for cards"):
        library.built(tmp_path / "cache")


def test_a_process_that_has_imported_torch(tmp_path: Path) -> None:
    """It would keep what it has found: no card. So no test can become one by accident."""
    import torch  # noqa: F401

    with pytest.raises(InputError, match="has imported torch"):
        library.load(tmp_path / "cache")
