"""A stand-in for an environment's ``python``: what it starts is forked from the tests' server.

The task that SLURM started lives as long as the process and passes its signals on, but SLURM cannot follow or freeze
that process. Who tests that gives a job the real python, which takes seconds of imports.
"""

import os
import shlex
import signal
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# A variable of a job: seconds that each of its steps waits.
STEP_SECONDS = "GALPACA_TEST_STEP_SECONDS"
PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

# Only what the server can run; the rest, such as ``-c 'import galpaca'``, is the real one's.
PYTHON = """#!/bin/bash
case "$1 $2" in
*/train.py\\ *|"-m galpaca") {real} || exec {python} {this} {server} "$@" ;;
esac
exec {python} "$@"
"""


def make_environment(folder: Path, server: str, real: str = "false") -> Path:
    """A folder with ``bin/python``.

    Args:
        real: a test of bash's; where it holds, a task is a process of the real python.
    """
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    words = {"python": sys.executable, "this": str(Path(__file__).resolve()), "server": server}
    python.write_text(PYTHON.format(real=real, **{name: shlex.quote(word) for name, word in words.items()}))
    python.chmod(0o755)
    return folder


def prepare(server: str) -> None:
    """What is changed in a task before its script runs."""
    from faults.crash import slow_steps
    from faults.rehearsals import fork_children

    fork_children(server)  # a rehearsal starts processes of its own
    if seconds := os.environ.get(STEP_SECONDS):
        slow_steps(float(seconds))


def main() -> None:
    server, *arguments = sys.argv[1:]
    sys.path.insert(0, str(TESTS))
    from forked import Forked

    if arguments[:2] == ["-m", "galpaca"]:
        arguments[:2] = [str(TESTS.parent / "src" / "galpaca" / "__main__.py")]
    hook = "cluster.forking:prepare"
    process = Forked(server, arguments, cwd=Path.cwd(), env=os.environ, hook=hook, hook_arguments=(server,))
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: process.send_signal(number))
    code = process.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
