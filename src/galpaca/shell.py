"""Lines for a shell, as advice shows them."""

import shlex
import shutil
import sys
from pathlib import Path


def python_line(code: str, *arguments: str | Path) -> str:
    """A line that runs code, which holds no double quote, in the Python that runs this.

    It is named ``python`` only where a shell would find the same one: advice has to work where it is shown, also to
    those who call a virtual environment's programs by their paths.
    """
    return shlex.join([_python(), "-c"]) + f' "{code}" {shlex.join(map(str, arguments))}'


def module_line(module: str, *arguments: str | Path) -> str:
    """A line that runs a module in the Python that runs this."""
    return shlex.join([_python(), "-m", module, *map(str, arguments)])


def _python() -> str:
    found = shutil.which("python")
    is_same = found is not None and Path(found).parent == Path(sys.executable).parent
    return "python" if is_same else sys.executable
