"""Ends a process in which no thread of Python runs any more: foreign code holds the interpreter lock.

A timer of the C library would not need that lock either, but it counts the time in which a scheduler has suspended the
job. This is a process of its own, and it counts its own looks, of which a suspended one takes none.
"""

import faulthandler
import os
import signal
import subprocess
import sys

# Of no meaning to anyone else; its handler is C, and writes the stacks of all threads to standard error.
_DUMP = signal.SIGRTMIN + 7

_CODE = """
import os, select, signal, sys, time
pid, looks, dump = map(int, sys.argv[1:])

def is_stopped():
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except OSError:
        state = "X"
    if state in "XZ":
        sys.exit()
    return state in "Tt"

missed = 0
while missed < looks:
    if select.select([0], [], [], 1.0)[0]:
        if not os.read(0, 4096):
            sys.exit()
        missed = 0
    else:
        missed += not is_stopped()
print(f"error: process {pid} has not run for {missed} s: foreign code holds Python's lock", file=sys.stderr, flush=True)
os.kill(pid, dump)
time.sleep(1)
os.kill(pid, signal.SIGKILL)
"""


class Backstop:
    """Kills this process, its stacks written to standard error, when ``beat`` was not called for a time.

    Args:
        seconds: in which neither this process nor the whole job was suspended.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        faulthandler.register(_DUMP, file=2, all_threads=True)
        numbers = [os.getpid(), max(1, round(self._seconds)), _DUMP]
        command = [sys.executable, "-I", "-S", "-c", _CODE, *map(str, numbers)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, bufsize=0, cwd="/")

    def beat(self) -> None:
        """This process lives; called about once a second."""
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.write(b".")
            except OSError:  # somebody ended it
                self.stop()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.kill()  # forked data workers hold its pipe as well, so closing that is no end
            process.wait()
            process.stdin.close()
            faulthandler.unregister(_DUMP)
