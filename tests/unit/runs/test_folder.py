"""The run folder: stable names, only whole things in it, nothing of a crash left."""

import os
from pathlib import Path

import pytest
from killed_writer import killed_while_replacing

from galpaca.errors import InputError
from galpaca.runs.folder import RunFolder, find_run


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "runs", "test")
    made.create()
    return made


@pytest.mark.parametrize("name", ["a", "galpaca67b-lr1e-5", "sweep/lr=2e-05", "a.b+c_d/e/7", "ünïcode"])
def test_names_that_are_folders(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path, name)
    folder.create()
    assert folder.path == tmp_path / name
    assert folder.path.is_dir()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/../b", "/a", "a/", "a//b", ".hidden", "a/.b", "a b", "a\n", "-a", "a\0"]
)
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="must be a valid folder name") as caught:
        RunFolder(tmp_path, name)
    assert caught.value.where == "run.name"


def test_everything_stands_in_the_runs_own_folder(folder: RunFolder) -> None:
    paths = [folder.config, folder.record, folder.metrics, folder.lock, folder.checkpoints, folder.model]
    assert {path.parent for path in paths} == {folder.path}
    assert len(set(paths)) == len(paths)


class TestCheckpoints:
    def test_none(self, folder: RunFolder) -> None:
        assert folder.saved_steps() == []
        assert folder.last_saved_step() == 0

    def test_in_order_of_their_steps(self, folder: RunFolder) -> None:
        for step in (1_000_000, 20, 3, 100):
            folder.checkpoint(step).mkdir(parents=True)
        assert folder.saved_steps() == [3, 20, 100, 1_000_000]
        assert folder.last_saved_step() == 1_000_000

    def test_only_committed_ones_count(self, folder: RunFolder) -> None:
        """A checkpoint that was being written when the process died is none."""
        folder.checkpoint(5).mkdir(parents=True)
        for name in (".step-00000009.partial", "step-9", "step-00000009.partial", "last", "step-00000009 (copy)"):
            (folder.checkpoints / name).mkdir()
        assert folder.saved_steps() == [5]


class TestCreate:
    def test_leaves_no_probe(self, folder: RunFolder) -> None:
        folder.create()
        assert list(folder.path.iterdir()) == []

    @pytest.mark.parametrize("in_the_way", ["runs", "runs/test"])
    def test_a_file_in_the_way(self, tmp_path: Path, in_the_way: str) -> None:
        (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
        (tmp_path / in_the_way).write_text("")
        with pytest.raises(InputError, match="cannot write to the run folder") as caught:
            RunFolder(tmp_path / "runs", "test").create()
        assert caught.value.where == str(tmp_path / "runs" / "test")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes into every folder")
    def test_no_right_to_write_in_a_folder_that_is_there(self, folder: RunFolder) -> None:
        """``mkdir(exist_ok=True)`` succeeds there, and the first checkpoint failed hours later."""
        folder.path.chmod(0o500)
        try:
            with pytest.raises(InputError, match="cannot write to the run folder"):
                folder.create()
        finally:
            folder.path.chmod(0o700)

    def test_it_writes_to_find_out(self, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: Path, content: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="No space left on device"):
            folder.create()


class TestDiscard:
    def test_a_folder_with_nothing_but_the_lock(self, folder: RunFolder) -> None:
        folder.lock.write_text("")
        folder.discard()
        assert not folder.path.exists()

    def test_a_folder_with_anything_else_stays(self, folder: RunFolder) -> None:
        folder.lock.write_text("")
        folder.metrics.write_text("{}\n")
        folder.discard()
        assert folder.metrics.read_text() == "{}\n"


class TestRemovePartial:
    def test_what_a_killed_process_left(self, folder: RunFolder) -> None:
        for partial in (folder.path / ".model.partial", folder.checkpoints / ".step-00000009.partial"):
            (partial / "inner").mkdir(parents=True)
            (partial / "inner" / "weights").write_text("half")
        folder.remove_partial()
        assert [path.name for path in folder.path.rglob("*")] == ["checkpoints"]

    def test_files_that_were_being_replaced(self, folder: RunFolder) -> None:
        """They were looked for under another name than they are written with, and as folders."""
        killed_while_replacing(folder.record)
        assert len(list(folder.path.iterdir())) == 2
        folder.remove_partial()
        assert list(folder.path.iterdir()) == [folder.record]

    def test_nothing_that_is_whole(self, folder: RunFolder) -> None:
        kept = [
            folder.checkpoint(3) / "state.partial",
            folder.model / "a.partial",
            folder.model / "config.json",
            folder.record,
        ]
        for path in kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("whole")
        folder.remove_partial()
        assert all(path.read_text() == "whole" for path in kept)


def test_a_run_is_found_by_its_folder_and_by_a_checkpoint(folder: RunFolder) -> None:
    folder.checkpoint(7).mkdir(parents=True)
    folder.metrics.touch()
    assert find_run(folder.path) == find_run(folder.checkpoint(7)) == RunFolder(folder.path.parent, "test")
    with pytest.raises(InputError, match=r"no run\.json in it"):
        find_run(folder.path, recorded=True)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither run\.json nor metrics\.jsonl in it"):
        find_run(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_run(tmp_path / "none")
