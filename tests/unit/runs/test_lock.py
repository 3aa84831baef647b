"""One writer in a run folder, named to others, and no lock that outlives its process."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from galpaca.errors import InputError
from galpaca.runs.lock import locked

HOLDER = """
import sys
from pathlib import Path
from galpaca.runs.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


@contextmanager
def held_by_another(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_process_is_refused_with_the_owner(lock: Path) -> None:
    """Two jobs with one run name wrote into one file of metrics."""
    with held_by_another(lock) as owner:
        with pytest.raises(InputError, match="another process") as caught, locked(lock):
            pass
        assert f"process {owner.pid} on {os.uname().nodename}" in caught.value.why
        assert caught.value.where == str(lock.parent)
        assert "run.name=" in caught.value.fix


def test_being_refused_takes_nothing_from_the_owner(lock: Path) -> None:
    with held_by_another(lock) as owner:
        for _ in range(2):
            with pytest.raises(InputError) as caught, locked(lock):
                pass
            assert str(owner.pid) in caught.value.why


def test_an_owner_in_this_process_counts_too(lock: Path) -> None:
    with locked(lock), pytest.raises(InputError, match="another process"), locked(lock):
        pass


def test_an_owner_that_ends_frees_it(lock: Path) -> None:
    with held_by_another(lock) as owner:
        owner.communicate("end\n", timeout=60)
    with locked(lock):
        pass


def test_an_owner_that_is_killed_frees_it(lock: Path) -> None:
    """A lock made of a file's mere presence stays after a crash, and the requeued job refuses to go on."""
    with held_by_another(lock) as owner:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait(timeout=60)
    assert str(owner.pid) in lock.read_text(), "its note is still there"
    with locked(lock):
        assert json.loads(lock.read_text())["pid"] == os.getpid(), "and nothing but the new owner's now"


def test_it_is_free_again_after_an_error(lock: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(lock):
        raise ZeroDivisionError
    assert lock.read_text() == ""
    with locked(lock):
        pass


@pytest.mark.parametrize("note", ["", "{", '{"pid": 3}'])
def test_an_owner_that_has_not_written_its_note_yet(lock: Path, note: str) -> None:
    with held_by_another(lock):
        lock.write_text(note)
        with pytest.raises(InputError) as caught, locked(lock):
            pass
        assert caught.value.why == "an unknown process"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_not_taken_for_another_process(
    lock: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Lustre without its flock option refuses every lock: users were advised to stop a process that was not there."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError) as caught, locked(lock):
        pass
    assert "another process" not in caught.value.what
    assert os.strerror(number) in str(caught.value)
