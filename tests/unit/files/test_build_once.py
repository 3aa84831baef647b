"""A folder is built once, and what is there is replaced only where it is not whole."""

from pathlib import Path

import pytest
from disk_order import disk_order

from galpaca.files.build_once import build_folder_once


def fill(folder: Path) -> None:
    (folder / "value").write_text("new")


def build(folder: Path) -> bool:
    return build_folder_once(folder, fill, lambda: (folder / "value").exists())


def test_a_whole_one_stays(tmp_path: Path) -> None:
    assert build(tmp_path / "made" / "one")
    assert not build(tmp_path / "made" / "one")


def test_one_that_is_not_whole_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "old").write_text("")
    assert build(tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["value"]


def test_one_that_cannot_be_built_anew_stays_as_it_is(tmp_path: Path) -> None:
    """Without a network, a model of an older revision is better than none."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "old").write_text("")

    def fail(folder: Path) -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - its own
        build_folder_once(tmp_path / "one", fail, lambda: False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["old", "one"]


def test_another_machines_stays_where_no_lock_held_it_back(tmp_path: Path) -> None:
    """Others have mapped its files by then."""
    folder = tmp_path / "one"

    def fill_slowly(partial: Path) -> None:
        folder.mkdir()
        (folder / "value").write_text("of another machine")
        fill(partial)

    build_folder_once(folder, fill_slowly, lambda: (folder / "value").exists())
    assert (folder / "value").read_text() == "of another machine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "one.lock"]


def test_the_content_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoded data was renamed alone: after a power cut its files could be empty under their final name."""
    order = disk_order(monkeypatch, "rename")
    build(tmp_path / "one")
    assert order == ["sync", "sync", "name", "sync"], "the file, its folder, the name, the folder above"
