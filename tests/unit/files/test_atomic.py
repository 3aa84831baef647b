"""A file is replaced at once, and what was synced survives."""

import os
import threading
from pathlib import Path

import pytest
from disk_order import disk_order
from killed_writer import killed_while_replacing

from galpaca.files.atomic import replace_file, sync_folder


class TestReplaceFile:
    def test_new_and_old(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        replace_file(path, "one")
        replace_file(path, "zwölf\n")
        assert path.read_bytes() == "zwölf\n".encode()
        assert list(tmp_path.iterdir()) == [path]

    def test_a_process_killed_while_writing_leaves_the_old_content(self, tmp_path: Path) -> None:
        """``write_text`` empties the file first: a kill at that moment lost the run's record."""
        killed_while_replacing(tmp_path / "a.json")
        assert (tmp_path / "a.json").read_text() == "old"

    def test_a_full_disk_leaves_the_old_content(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        path = tmp_path / "a.json"
        path.write_text("old")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                replace_file(path, "new")
        assert path.read_text() == "old"

    def test_the_content_is_on_disk_before_it_has_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rename may survive a power cut that the content behind it does not: an empty file."""
        order = disk_order(monkeypatch, "replace")
        replace_file(tmp_path / "a.json", "new")
        assert order[:2] == ["sync", "name"]

    def test_a_reader_sees_the_old_content_or_the_new(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        contents = {letter * 100_000 for letter in "ab"}
        replace_file(path, "a" * 100_000)
        seen: set[str] = set()
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                seen.add(path.read_text())

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for _ in range(50):
                for content in sorted(contents):
                    replace_file(path, content)
        finally:
            done.set()
            reader.join()
        assert seen <= contents
        assert seen


def test_syncing_reaches_every_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "deep").write_text("x")
    (tmp_path / "top").write_text("x")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    sync_folder(tmp_path)
    assert set(synced) == {path.stat().st_ino for path in [tmp_path, *tmp_path.rglob("*")]}
    assert synced[-1] == tmp_path.stat().st_ino, "the folder last: its names come after what they name"
