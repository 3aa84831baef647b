import os
import subprocess
import sys
from pathlib import Path

import pytest

from galpaca.shell import module_line, python_line

SHOW = "import sys; print(sys.prefix, *sys.argv[1:], sep='|')"


@pytest.mark.parametrize("programs", ["of this Python first", "of another Python", "of the system alone"])
def test_a_line_runs_in_this_python_whatever_the_path_holds(
    programs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an activated environment, ``python`` is another interpreter, or none: it lacks pyarrow."""
    (tmp_path / "python").symlink_to("/bin/false")
    first = {"of this Python first": Path(sys.executable).parent, "of another Python": tmp_path}.get(programs)
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, filter(None, [first, "/usr/bin", "/bin"]))))
    line = python_line(SHOW, "a b.json", "it's")
    assert line.startswith("python ") == (programs == "of this Python first")
    assert shell(line) == f"{sys.prefix}|a b.json|it's\n"
    assert shell(module_line("json.tool", "--help")).startswith("usage:")


def shell(line: str) -> str:
    return subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True, timeout=60).stdout
