"""``train.py`` in processes that are forked from one that has imported everything: a second a run instead of five.

The code that runs is the same, from the command line on. What depends on when a module is imported, or on environment
variables that libraries read at import, is tested in processes of its own (``conftest.Train`` with ``env``).

Run as a module, this file is the server: it forks for every connection to its socket, and ends with its standard input.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

IMPORTED = (
    "lightning.pytorch",
    "lightning.pytorch.strategies.launchers.subprocess_script",
    "torch.distributed.fsdp",
    "transformers.models.opt.modeling_opt",
    "transformers.models.auto.tokenization_auto",
    "hydra._internal.utils",
    "hydra._internal.hydra",
    "rich.progress",
    "galpaca.app.train.run",
    "galpaca.app.train.fit",
    "galpaca.app.train.release",
    "galpaca.app.train.instantiate",
    "galpaca.release.export",
    "galpaca.release.card",
    "galpaca.model.last_layer",
    "galpaca.model.layer_unit",
    "galpaca.model.loss",
    "galpaca.training.checkpoints.callback",
    "galpaca.training.checkpoints.store",
    "galpaca.training.datamodule",
    "galpaca.training.loggers",
    "galpaca.training.module",
    "galpaca.training.trainer",
)


class Forked:
    """A process of the server, as ``subprocess.Popen`` would show it.

    Args:
        server: its socket.
        arguments: of the script, whose path comes first.
        group: process group to join; by default one of its own.
        hook: ``module:function`` to call with ``hook_arguments`` before the script runs.
    """

    def __init__(
        self,
        server: str,
        arguments: Sequence[str],
        *,
        cwd: str | Path,
        env: Mapping[str, str],
        stdout: int = 1,
        stderr: int = 2,
        group: int = 0,
        hook: str | None = None,
        hook_arguments: Sequence[Any] = (),
    ) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server)
        request = {
            "server": server,
            "arguments": self.args,
            "cwd": str(cwd),
            "env": dict(env),
            "group": group,
            "hook": hook,
            "hook_arguments": list(hook_arguments),
        }
        text = json.dumps(request).encode()
        socket.send_fds(self._connection, [len(text).to_bytes(8, "little")], [stdout, stderr])
        self._connection.sendall(text)
        self.pid = self._number()

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = self._number()
            self._connection.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def kill_group(self) -> None:
        """The process and those that Lightning started along with it."""
        os.killpg(self.pid, signal.SIGKILL)
        self.wait(30)

    def _number(self) -> int:
        received = self._connection.recv(8, socket.MSG_WAITALL)
        return int.from_bytes(received, "little", signed=True)


class Server:
    """Started once for all tests of a pytest worker."""

    def __init__(self, tests: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="galpaca-forked-")
        self.address = str(Path(self._folder.name) / "socket")
        path = os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "forked", self.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._folder.cleanup()


def serve(address: str) -> None:
    for module in IMPORTED:
        import_module(module)
    gc.freeze()  # else a collection in a run would copy all that it shares with the server
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for the runs
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        ready = select.select([listener, sys.stdin], [], [])[0]
        if sys.stdin in ready:
            os._exit(0)
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            _run_and_tell(connection)
        connection.close()


def _run_and_tell(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, descriptors, *_ = socket.recv_fds(connection, 8, 2)
    request = json.loads(connection.recv(int.from_bytes(head, "little"), socket.MSG_WAITALL))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(request, descriptors)
    connection.sendall(pid.to_bytes(8, "little", signed=True))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        connection.sendall(status.to_bytes(8, "little", signed=True))
    finally:
        os._exit(0)


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    os.setpgid(0, request["group"])
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in zip((0, 1, 2), (null, *descriptors), strict=True):
        os.dup2(source, target)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[:] = request["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    sys.modules["__main__"].__spec__ = None  # type: ignore[assignment]
    group, server = os.getpgid(0), request["server"]

    def start(command: list[str], env: dict[str, str], cwd: str | None = None) -> Forked:
        hook = {name: request[name] for name in ("hook", "hook_arguments")}
        return Forked(server, command[1:], cwd=cwd or Path.cwd(), env=env, group=group, **hook)

    launcher: Any = sys.modules["lightning.pytorch.strategies.launchers.subprocess_script"]
    launcher.subprocess = SimpleNamespace(Popen=start)
    if request["hook"]:
        module, _, function = request["hook"].partition(":")
        getattr(import_module(module), function)(*request["hook_arguments"])
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    # As an interpreter ends, but for taking down all that the server has imported, which takes a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
