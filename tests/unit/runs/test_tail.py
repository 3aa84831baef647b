from pathlib import Path

from galpaca.runs.tail import LineTail


def test_lines_come_once_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = LineTail(path)
    assert tail.read() == []
    path.write_text("one\ntw", encoding="utf-8")
    assert (tail.read(), tail.restarted) == (["one\n"], True)
    with path.open("a", encoding="utf-8") as file:
        file.write("o\nthree\n")
    assert (tail.read(), tail.restarted) == (["two\n", "three\n"], False)
    assert (tail.read(), tail.restarted) == ([], False)


def test_a_file_that_was_replaced_or_truncated_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("one\ntwo\n", encoding="utf-8")
    tail = LineTail(path)
    tail.read()
    (tmp_path / "new").write_text("one\nother\n", encoding="utf-8")
    (tmp_path / "new").replace(path)
    assert (tail.read(), tail.restarted) == (["one\n", "other\n"], True)
    path.write_text("one\n", encoding="utf-8")
    assert (tail.read(), tail.restarted) == (["one\n"], True)
    path.unlink()
    assert (tail.read(), tail.restarted) == ([], True)
