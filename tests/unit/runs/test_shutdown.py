"""Real signals to real processes: the first asks, a second Ctrl-C ends; a fork leaves it to its parent."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from galpaca.runs.shutdown import Shutdown

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2]

HEAD = """
import os, signal, sys, time
from galpaca.errors import StoppedBySignal
from galpaca.runs.shutdown import Shutdown, signal_of

shutdown = Shutdown()
shutdown.listen()

def say(text):
    print(text, flush=True)

def wait():
    for _ in range(6000):
        time.sleep(0.01)
"""

NOT_DEFERRED = """
try:
    say("ready")
    wait()
except StoppedBySignal as stop:
    say(f"{stop} {shutdown.urgency}")
"""

DEFERRED = """
shutdown.deferred = True
say("ready")
try:
    while not shutdown.urgency:
        time.sleep(0.01)
    say("asked")
    wait()
except StoppedBySignal as stop:
    say(f"{stop} {shutdown.urgency}")
"""

FORKED = """
child = os.fork()
if not child:
    try:
        for _ in range(3):
            os.kill(os.getpid(), int(sys.argv[1]))
            time.sleep(0.05)
        os._exit(10 + shutdown.urgency)
    except BaseException:
        os._exit(20)
_, status = os.waitpid(child, 0)
say(f"child {os.waitstatus_to_exitcode(status)}, parent {shutdown.urgency}")
"""

IMPORTING = """
sent = 0

def send(event, arguments):
    global sent
    if event == "import":
        sent += 1
        if sent > 1:  # from here on, the first one is going on
            signal.raise_signal(int(sys.argv[1]))

with shutdown.listening():
    try:
        sys.addaudithook(send)
        import torch.distributed
        wait()
    except StoppedBySignal as stop:
        say(f"{stop} {sent > 500} {'torch.distributed' in sys.modules}")
"""

DROPPED = """
import weakref

class Sends:
    def __init__(self, number):
        self.number = number
    def __del__(self):
        if self.number:
            signal.raise_signal(self.number)
            time.sleep(0)  # here Python calls the handler

with shutdown.listening():
    try:
        if sys.argv[2] == "finalizer":
            Sends(int(sys.argv[1]))
        else:
            seen = Sends(0)
            reference = weakref.ref(seen, lambda _: Sends.__del__(Sends(int(sys.argv[1]))))
            del seen
        wait()
    except StoppedBySignal as stop:
        say(f"{stop}")
"""


def replies_of(script: str, number: signal.Signals, *replies: str, arguments: Sequence[str] = ()) -> list[str]:
    """What the script says, errors too; each time it says one of ``replies``, it gets the signal."""
    command = [sys.executable, "-c", HEAD + script, str(int(number)), *arguments]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line.strip())
            if lines[-1] in replies:
                process.send_signal(number)
    return lines


@pytest.mark.parametrize("number", SIGNALS)
def test_before_training_a_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    """A flag that nobody looks at before training made Ctrl-C useless for the minutes of encoding."""
    assert replies_of(NOT_DEFERRED, number, "ready") == ["ready", f"stopped by {number.name} 0"]


def test_in_training_the_first_only_asks_and_a_second_ctrl_c_ends() -> None:
    assert replies_of(DEFERRED, signal.SIGINT, "ready", "asked") == ["ready", "asked", "stopped by SIGINT 3"]


def test_a_second_sigterm_changes_nothing() -> None:
    """A scheduler repeats it, and the run died in the midst of the checkpoint that the first one had requested."""
    script = DEFERRED.replace("    wait()", '    time.sleep(0.3)\n    say("saved")')
    assert replies_of(script, signal.SIGTERM, "ready", "asked") == ["ready", "asked", "saved"]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("deferred", ["", "shutdown.deferred = True\n"])
def test_a_forked_child_ignores_it(number: signal.Signals, deferred: str) -> None:
    """Ctrl-C goes to the whole process group: data loader workers died of it, and the run with them before it saved."""
    assert replies_of(deferred + FORKED, number) == ["child 10, parent 0"]


# Locks a mutex that it holds: no signal ends that wait, and Python calls no handler until it ends.
DEAF = """
import ctypes, threading
mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock

def end(stop):
    say(f"{stop} {stop.number}")
    os._exit(7)

shutdown = Shutdown(end)
shutdown.deferred = sys.argv[2] == "deferred"
shutdown.at_last = [lambda stop: 1 / 0, lambda stop: say("last")]
with shutdown.listening():
    lock(mutex)
    threading.Timer(0.5, say, ["ready"]).start()
    lock(mutex)
"""

FORKED_SIGNALS = """
def end(stop):
    say("ended")
    os._exit(7)

with Shutdown(end).listening():
    child = os.fork()
    if not child:
        os.kill(os.getpid(), int(sys.argv[1]))
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(7)
    say("lives")
"""

HANGUP = """
say("ready")
wait()
"""


STRONGEST = """
shutdown.deferred = True
for name in sys.argv[2].split(","):
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(0.01)
say(signal_of(shutdown.urgency).name)
"""


@pytest.mark.parametrize(
    ("sent", "strongest"),
    [
        ("SIGTERM", "SIGTERM"),
        ("SIGUSR1,SIGTERM", "SIGUSR1"),
        ("SIGTERM,SIGUSR1", "SIGUSR1"),
        ("SIGINT,SIGUSR1", "SIGINT"),
    ],
)
def test_the_strongest_signal_decides(sent: str, strongest: str) -> None:
    """A job that is warned and then terminated comes back; one that a person stops does not."""
    assert replies_of(STRONGEST, signal.SIGTERM, arguments=(sent,)) == [strongest]


def test_no_exception_comes_out_of_an_import() -> None:
    """In the initialization of ``torch._C`` it was a C++ exception that nobody caught: exit code 134, nothing said."""
    assert replies_of(IMPORTING, signal.SIGTERM) == ["stopped by SIGTERM True True"]


@pytest.mark.parametrize("where", ["finalizer", "weak reference"])
def test_an_exception_that_python_drops_comes_again(where: str) -> None:
    """It was printed with its stack, and the run went on as if nobody had requested it to stop."""
    assert replies_of(DROPPED, signal.SIGTERM, arguments=(where,)) == ["stopped by SIGTERM"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_main_thread_in_foreign_code_is_no_excuse(number: signal.Signals) -> None:
    """A rank that waits for others at the start was deaf: only SIGKILL ended it."""
    meant = {signal.SIGHUP: signal.SIGTERM, signal.SIGUSR2: signal.SIGUSR1}.get(number, number)
    said = replies_of(DEAF, number, "ready", arguments=("at once",))
    assert said == ["ready", "last", f"stopped by {number.name} {int(meant)}"]


def test_a_second_ctrl_c_ends_a_step_that_hangs() -> None:
    command = [sys.executable, "-c", HEAD + DEAF, "0", "deferred"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(8)  # the first one asks
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 7


# Whatever else has a handler, such as one of asyncio for children that end, is no first Ctrl-C.
OTHERS = """
def end(stop):
    say("ended unsaved")
    os._exit(7)

signal.signal(signal.SIGCHLD, lambda *_: None)
shutdown = Shutdown(end)
with shutdown.listening(), shutdown.deferring():
    os.kill(os.getpid(), signal.SIGCHLD)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(7)
    say(f"saved {shutdown.urgency}")
"""

# Ctrl-C in an import, right before training begins: it is sent again when signals are deferred.
HELD = """
def end(stop):
    say("ended unsaved")
    os._exit(7)

shutdown, imports = Shutdown(end), 0

def send(event, arguments):
    global imports
    imports += event == "import"
    if event == "import" and imports == 2:  # from here on, the first one is going on
        signal.raise_signal(signal.SIGINT)
        shutdown.deferred = True

with shutdown.listening():
    sys.addaudithook(send)
    import sqlite3.dump
    time.sleep(7)
    say(f"saved {shutdown.urgency}")
"""


@pytest.mark.parametrize("script", [OTHERS, HELD], ids=["another signal", "a signal in an import"])
def test_the_first_ctrl_c_of_training_is_the_first(script: str) -> None:
    """Taken for the second, it ended the run five seconds later, in the midst of its checkpoint."""
    assert replies_of(script, signal.SIGINT) == ["saved 3"]


def test_a_signal_to_a_forked_child_is_none_to_its_parent() -> None:
    assert replies_of(FORKED_SIGNALS, signal.SIGTERM) == ["lives"]


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    command = ["nohup", sys.executable, "-c", HEAD + HANGUP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.terminate()
        assert process.wait(10) == 1


def test_another_thread_may_ask_to_listen_and_changes_nothing() -> None:
    """Python refuses handlers outside the main thread with a ValueError."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with ThreadPoolExecutor(1) as other:
        other.submit(Shutdown().listen).result()
    assert [signal.getsignal(number) for number in SIGNALS] == before
