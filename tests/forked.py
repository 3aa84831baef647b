"""``train.py`` in processes that are forked from one that has imported everything: a second a run instead of five.

The code that runs is the same, from the command line on. What depends on when a module is imported, or on environment
variables that libraries read at import, is tested in processes of its own (``conftest.Train`` with ``env``).

Run as a module, this file is the server: it forks for every connection to its socket, and ends when nobody holds it.
"""

import atexit
import gc
import json
import os
import pkgutil
import runpy
import select
import shutil
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

import galpaca

# What a run imports beside the modules of galpaca, and these at import.
IMPORTED = (
    "lightning.pytorch",
    "lightning.pytorch.strategies.launchers.subprocess_script",
    "torch._dynamo.backends.debugging",
    "torch.distributed.fsdp",
    "torch.profiler._cupti_monitor",
    "transformers.conversion_mapping",
    "transformers.models.opt.modeling_opt",
    "transformers.models.auto.tokenization_auto",
    "hydra._internal.utils",
    "hydra._internal.hydra",
    "rich._emoji_codes",
    "rich.progress",
)
# They run when they are imported.
_SCRIPTS = ("galpaca.__main__", "galpaca.train")


class Forked:
    """A process of the server, as ``subprocess.Popen`` would show it.

    Args:
        server: its socket.
        arguments: of the script, whose path comes first; or ``-m`` and a module.
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
    """The process that forks, for all who hold it: it ends with the last of them.

    Args:
        tests: folder of its modules.
        address: of one that runs; by default it starts one.

    Raises:
        OSError: the one that should run has ended.
    """

    def __init__(self, tests: Path, address: str | None = None) -> None:
        self.address = address or self._start(tests)
        self._held = socket.socket(socket.AF_UNIX)
        try:
            self._held.connect(_holders(self.address))
        except OSError:
            self._held.close()
            raise

    @staticmethod
    def _start(tests: Path) -> str:
        address = str(Path(tempfile.mkdtemp(prefix="galpaca-forked-")) / "socket")
        path = os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-m", "forked", address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()
        process.returncode = 0  # nobody waits for it: others may hold it longer
        return address

    def close(self) -> None:
        self._held.close()


def fork_for_spawn() -> None:
    """A hook: a pool that would start Python anew for its processes forks them."""
    import multiprocessing

    get_context: Any = multiprocessing.get_context
    patched: Any = multiprocessing
    patched.get_context = lambda _: get_context("fork")


def _holders(address: str) -> str:
    return f"{address}.holders"


def serve(address: str) -> None:
    _import_and_warm_up()
    gc.freeze()  # else a collection in a run would copy all that it shares with the server
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for the runs
    listener, holders = _listen(address), _listen(_holders(address))
    print("ready", flush=True)
    held = [holders.accept()[0]]
    while held:
        ready = select.select([listener, holders, *held], [], [])[0]
        held = [connection for connection in held if connection not in ready]
        if holders in ready:
            held.append(holders.accept()[0])
        if listener in ready:
            connection = listener.accept()[0]
            if os.fork() == 0:
                listener.close()
                _run_and_tell(connection)
            connection.close()
    shutil.rmtree(Path(address).parent)
    os._exit(0)


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    return listener


def _import_and_warm_up() -> None:
    """Imports everything, and fills what libraries keep for a process: Hydra's parsers, transformers' tables."""
    for module in IMPORTED:
        import_module(module)
    for found in pkgutil.walk_packages(galpaca.__path__, "galpaca."):
        if found.name not in _SCRIPTS and ".chat" not in found.name:  # its page takes seconds
            import_module(found.name)
    import_module("galpaca.app.config.composition").compose(
        ["+experiment=demo", "data=local", "data.path=records.json"]
    )
    import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("opt")


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
    # The server's own know whether its descriptors could seek.
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    is_module = request["arguments"][0] == "-m"
    sys.argv[:] = request["arguments"][is_module:]
    sys.path[0] = request["cwd"] if is_module else str(Path(sys.argv[0]).parent)
    sys.modules["__main__"].__spec__ = None
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
        if is_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
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
