"""A process that is killed while it replaces a file."""

import signal
import subprocess
import sys
from pathlib import Path

DYING = """
import os, signal, sys
from pathlib import Path
from galpaca.files.atomic import replace_file

os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
replace_file(Path(sys.argv[1]), "new" * 10_000)
"""


def killed_while_replacing(path: Path) -> None:
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", DYING, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
