"""Encoded data on disk: whole or absent, encoded once however many ask, damage noticed and mended."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from galpaca.data.cache import cache_key, load_or_encode
from galpaca.data.examples import EncodedExamples, spans_behind
from galpaca.data.receipt import Receipt
from galpaca.errors import InputError

KEY = cache_key(data="abc")
ARRAYS = tuple(field.name for field in fields(EncodedExamples) if field.name != "receipt")
FILES = [f"{name}.npy" for name in ARRAYS] + ["meta.json"]


def make_examples() -> EncodedExamples:
    count, length = 50, 7
    return EncodedExamples(
        tokens=np.arange(count * length).astype(np.uint16),
        offsets=np.arange(count + 1, dtype=np.int64) * length,
        **spans_behind(np.full(count, 3), np.full(count, length)),
        content_hashes=np.arange(count, dtype=np.uint64) * np.uint64(2**57),
        prompt_hashes=np.arange(count, dtype=np.uint64),
        near_hashes=np.arange(count, dtype=np.uint64),
        record_indices=np.arange(count, dtype=np.int32),
        receipt=Receipt(source="a.json", max_length=512, records=60, examples=50, dropped={"empty output": 10}),
    )


class Encoder:
    """Counts how often it is requested to encode."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> EncodedExamples:
        self.calls += 1
        return make_examples()


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


def check(examples: EncodedExamples) -> None:
    wanted = make_examples()
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(examples, name), getattr(wanted, name))
        assert getattr(examples, name).dtype == getattr(wanted, name).dtype
    assert examples.receipt == wanted.receipt


def entry_of(root: Path) -> Path:
    (entry,) = (path for path in root.iterdir() if path.is_dir())
    return entry


def quietly(root: Path, encoder: Callable[[], EncodedExamples]) -> EncodedExamples:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_or_encode(root, KEY, encoder)


def test_the_second_call_does_not_encode_again(tmp_path: Path, encoder: Encoder) -> None:
    check(quietly(tmp_path / "new" / "cache", encoder))
    check(quietly(tmp_path / "new" / "cache", encoder))
    assert encoder.calls == 1


@pytest.mark.parametrize("again", [False, True])
def test_arrays_are_memory_mapped_and_read_only(tmp_path: Path, encoder: Encoder, again: bool) -> None:
    """Eight ranks on a node share one copy of the tokens, and none can change another's."""
    examples = load_or_encode(tmp_path, KEY, encoder)
    if again:
        examples = load_or_encode(tmp_path, KEY, encoder)
    for name in ARRAYS:
        assert isinstance(getattr(examples, name), np.memmap)
        assert not getattr(examples, name).flags.writeable


def test_another_key_is_other_data(tmp_path: Path, encoder: Encoder) -> None:
    for number in range(20):  # more than one hexadecimal digit can tell apart
        load_or_encode(tmp_path, cache_key(data=number), encoder)
    assert encoder.calls == 20


def test_every_part_decides_the_key() -> None:
    """A part that is left out finds data that was encoded with another tokenizer, template or length."""
    parts = {"data": "a", "columns": {"output": "b"}, "max_length": 512, "on_truncation": "keep"}
    keys = {cache_key(**parts)}
    for name in parts:
        keys.add(cache_key(**{**parts, name: "other"}))
        keys.add(cache_key(**{other: value for other, value in parts.items() if other != name}))
    assert len(keys) == 1 + 2 * len(parts)
    assert cache_key(**dict(reversed(parts.items()))) in keys


def test_the_format_decides_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older release's arrays mean something else."""
    monkeypatch.setattr("galpaca.data.cache.FORMAT_VERSION", -1)
    assert cache_key(data="abc") != KEY


class TestDamage:
    """Whatever happens to a file of the cache, it is noticed, reported, and mended by encoding again."""

    def check_rebuilt(self, root: Path, encoder: Encoder) -> None:
        calls = encoder.calls
        with pytest.warns(UserWarning, match="damaged"):
            check(load_or_encode(root, KEY, encoder))
        assert encoder.calls == calls + 1
        check(quietly(root, encoder))
        assert encoder.calls == calls + 1

    @pytest.fixture
    def entry(self, tmp_path: Path, encoder: Encoder) -> Path:
        load_or_encode(tmp_path, KEY, encoder)
        assert sorted(path.name for path in entry_of(tmp_path).iterdir()) == sorted(FILES)
        return entry_of(tmp_path)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file(self, tmp_path: Path, encoder: Encoder, entry: Path, name: str) -> None:
        (entry / name).unlink()
        self.check_rebuilt(tmp_path, encoder)

    @pytest.mark.parametrize("kept", [0, 0.5, -1])
    @pytest.mark.parametrize("name", FILES)
    def test_a_cut_file(self, tmp_path: Path, encoder: Encoder, entry: Path, name: str, kept: float) -> None:
        content = (entry / name).read_bytes()
        (entry / name).write_bytes(content[: int(kept * len(content)) if kept >= 0 else -1])
        self.check_rebuilt(tmp_path, encoder)

    @pytest.mark.parametrize("at", [0, 0.02, 0.5, 0.999])
    @pytest.mark.parametrize("name", FILES[:-1])
    def test_a_flipped_bit(self, tmp_path: Path, encoder: Encoder, entry: Path, name: str, at: float) -> None:
        content = bytearray((entry / name).read_bytes())
        content[int(at * len(content))] ^= 1
        (entry / name).write_bytes(content)
        self.check_rebuilt(tmp_path, encoder)

    def test_a_flipped_bit_anywhere_in_the_receipt(self, tmp_path: Path, encoder: Encoder, entry: Path) -> None:
        """The arrays had checksums and the receipt had none: 60 records became 61, and nothing showed it."""
        path = entry / "meta.json"
        content = path.read_bytes()
        for place in range(0, len(content), 5):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            self.check_rebuilt(tmp_path, encoder)

    def test_files_of_another_entry(self, tmp_path: Path, encoder: Encoder, entry: Path) -> None:
        """A sync tool that mixes two entries leaves files that are whole, and do not belong together."""
        other = Path(shutil.copytree(entry, tmp_path / "elsewhere"))
        np.save(other / "tokens.npy", np.zeros(350, np.uint16))
        shutil.copy(other / "tokens.npy", entry / "tokens.npy")
        shutil.rmtree(other)
        self.check_rebuilt(tmp_path, encoder)

    @pytest.mark.parametrize("content", ["", "{}", "[]", "null", "3", '{"files": [], "receipt": {}}', "\xff"])
    def test_metadata_that_is_something_else(self, tmp_path: Path, encoder: Encoder, entry: Path, content: str) -> None:
        (entry / "meta.json").write_text(content, encoding="latin1")
        self.check_rebuilt(tmp_path, encoder)


class TestFailures:
    def test_what_encoding_refuses_leaves_nothing(self, tmp_path: Path, encoder: Encoder) -> None:
        def refuse() -> EncodedExamples:
            raise InputError("bad records")

        with pytest.raises(InputError, match="bad records"):
            load_or_encode(tmp_path / "new" / "cache", KEY, refuse)
        assert list(tmp_path.iterdir()) == []
        check(quietly(tmp_path / "new" / "cache", encoder))

    def test_what_encoding_refuses_leaves_the_rest(self, tmp_path: Path, encoder: Encoder) -> None:
        def refuse() -> EncodedExamples:
            raise InputError("bad records")

        load_or_encode(tmp_path, KEY, encoder)
        with pytest.raises(InputError, match="bad records"):
            load_or_encode(tmp_path, cache_key(data="other"), refuse)
        check(quietly(tmp_path, encoder))
        assert encoder.calls == 1

    def test_a_full_disk_leaves_nothing(
        self, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save, saved = np.save, []

        def fill_up(path: Path, array: np.ndarray) -> None:
            saved.append(path)
            save(path, array)
            if len(saved) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(np, "save", fill_up)
            with pytest.raises(InputError, match="No space left") as caught:
                load_or_encode(tmp_path, KEY, encoder)
        assert "data.cache_dir=" in caught.value.fix
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]
        check(quietly(tmp_path, encoder))

    @pytest.mark.parametrize("below", ["file", "file/cache"])
    def test_a_folder_that_cannot_be_made(self, tmp_path: Path, encoder: Encoder, below: str) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(InputError, match="cannot save") as caught:
            load_or_encode(tmp_path / below, KEY, encoder)
        assert caught.value.where == str(tmp_path / below)
        assert "data.cache_dir=" in caught.value.fix
        assert encoder.calls == 0, "minutes of encoding before the refusal"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes into every folder")
    def test_a_folder_without_the_right_to_write(self, tmp_path: Path, encoder: Encoder) -> None:
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(InputError, match="cannot save"):
                load_or_encode(tmp_path, KEY, encoder)
        finally:
            tmp_path.chmod(0o700)


ASKER = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_cache import KEY, check, make_examples
from galpaca.data.cache import load_or_encode

root, log = map(Path, sys.argv[1:3])

def encode():
    with log.open("a") as file:
        file.write("encoded\\n")
    time.sleep(0.5)
    return make_examples()

print("ready", flush=True)
sys.stdin.readline()
check(load_or_encode(root, KEY, encode))
"""


Asker = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Asker]:
    """Starts processes that need the data on a signal; none of them outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str = ASKER) -> subprocess.Popen[str]:
        arguments = [tmp_path / "cache", tmp_path / "log", Path(__file__).parent]
        command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=60)


def wait_for(process: subprocess.Popen[str], message: str) -> None:
    assert process.stdout
    assert process.stdout.readline() == f"{message}\n"


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def test_of_four_processes_that_ask_at_once_one_encodes(tmp_path: Path, asker: Asker) -> None:
    """Each rank of a node encoded for itself, and the last to finish replaced what the others had mapped."""
    processes = [asker() for _ in range(4)]
    for process in processes:
        wait_for(process, "ready")
    for process in processes:
        go(process)
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert (tmp_path / "log").read_text() == "encoded\n"


@pytest.mark.parametrize("refused", [False, True])
def test_the_lock_is_given_back_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    """Taken twice and given back once, it was free only because the object happened to be destroyed: a traceback that
    is kept, or a debugger, would have left every other process waiting.
    """
    locks: list[FileLock] = []

    def kept(path: Path) -> FileLock:
        locks.append(FileLock(path))
        return locks[-1]

    def encode() -> EncodedExamples:
        if refused:
            raise ZeroDivisionError
        return make_examples()

    monkeypatch.setattr("galpaca.files.build_once.FileLock", kept)
    with pytest.raises(ZeroDivisionError) if refused else nullcontext():
        load_or_encode(tmp_path, KEY, encode)
    assert [lock.is_locked for lock in locks] == [False]


STOPPED = ASKER.replace(
    "    return make_examples()",
    """
    print("encoding", flush=True)
    sys.stdin.readline()
    raise {}
""",
)


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "ValueError('bad records')"])
def test_who_waits_goes_on_where_the_first_is_stopped(tmp_path: Path, asker: Asker, error: str) -> None:
    """The first took the folder away in which the second waited for its lock: "the encoded data cannot save: No
    such file or directory". Where ranks read the same bad data, that is what rank 0 showed instead of the problems.
    """
    first, second = asker(STOPPED.format(error)), asker()
    for process in (first, second):
        wait_for(process, "ready")
    go(first)
    wait_for(first, "encoding")
    go(second)
    time.sleep(0.3)  # until it waits
    go(first)
    assert first.wait(timeout=60) != 0
    assert second.wait(timeout=60) == 0
    assert (tmp_path / "log").read_text() == "encoded\n" * 2


KILLED = ASKER.replace(
    "print(",
    """
import numpy as np
save = np.save

def half(path, array):
    save(path, array)
    if Path(path).name == "spans.npy":
        print("writing", flush=True)
        time.sleep(60)

np.save = half
print(""",
)


@pytest.fixture
def killed_while_writing(tmp_path: Path, asker: Asker) -> Path:
    """The cache folder as a process leaves it that is killed half-way through the arrays."""
    process = asker(KILLED)
    go(process)
    wait_for(process, "ready")
    wait_for(process, "writing")
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    return tmp_path / "cache"


def test_a_process_killed_while_writing_leaves_nothing_that_counts(
    killed_while_writing: Path, encoder: Encoder
) -> None:
    """A half-written entry without a lock to say so was read as a whole one."""
    check(quietly(killed_while_writing, encoder))
    check(quietly(killed_while_writing, encoder))
    assert encoder.calls == 1


def test_what_a_killed_process_left_is_removed(killed_while_writing: Path, encoder: Encoder) -> None:
    """Every killed job left a copy of the data that nothing ever looked for again."""
    check(quietly(killed_while_writing, encoder))
    assert not list(killed_while_writing.glob("*.partial*"))
