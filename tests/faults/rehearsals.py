"""``galpaca rehearse``, and benchmarks like it, whose phases are forked from the tests' server, without imports."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from conftest import REPOSITORY
from forked import Forked

_SCRIPTS = {
    "galpaca.train": REPOSITORY / "train.py",
    "galpaca.app.rehearsal.reload": REPOSITORY / "src" / "galpaca" / "app" / "rehearsal" / "reload.py",
}


def fork_children(server: str) -> None:
    """A hook: puts the server in the place of ``subprocess``, where a rehearsal starts its processes."""
    from galpaca.app.rehearsal import child

    def start(command: list[str], env: dict[str, str], stdout: Any, **_: Any) -> Forked:
        module, output = command[2], stdout.fileno()
        if module in _SCRIPTS:
            arguments, folder = [str(_SCRIPTS[module]), *command[3:]], Path.cwd()
        else:
            arguments, folder = command[1:], REPOSITORY
        return Forked(server, arguments, cwd=folder, env=env, stdout=output, stderr=output)

    module: Any = child
    module.subprocess = SimpleNamespace(Popen=start, DEVNULL=None, STDOUT=None)


def processes_in(folder: Path) -> list[int]:
    """Those that are alive and work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:  # another user's, or it ended meanwhile, or is a zombie
            continue
    return found


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files with their bytes and when they were last written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
