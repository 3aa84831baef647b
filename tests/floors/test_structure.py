"""The shape of the package, counted: no circles, few arrows."""

from pathlib import Path

import galpaca
from scripts.count_structure import arrows, circles, imports, modules, rooms, wide_functions

SOURCES = Path(galpaca.__file__).parent


def test_no_modules_import_each_other() -> None:
    assert circles(imports(modules(SOURCES))) == []


def test_app_has_few_rooms_and_few_arrows() -> None:
    """There were 45 rooms and 116 arrows once, and nobody found a file in one guess."""
    assert len(rooms(SOURCES, "app")) <= 25
    assert len(arrows(imports(modules(SOURCES)), "app")) <= 60


def test_the_counting_finds_what_it_looks_for(tmp_path: Path) -> None:
    source = tmp_path / "galpaca"
    (source / "app" / "wing").mkdir(parents=True)
    (source / "app" / "wing" / "a.py").write_text("def f():\n    from galpaca.app import b\n")
    (source / "app" / "b.py").write_text("from galpaca.app.wing.a import f\ndef g(a, b, c, *, d, e, f, h=1): ...\n")
    (source / "app" / "c.py").write_text("class C:\n    def m(self, a, b, c, d, e, f): ...\nimport galpaca.app.b\n")
    trees = modules(source)
    assert rooms(source, "app") == ["b", "c", "wing"]
    assert arrows(imports(trees), "app") == {("b", "wing"), ("wing", "b"), ("c", "b")}
    assert circles(imports(trees)) == [["galpaca.app.b", "galpaca.app.wing.a"]]
    assert wide_functions(trees) == {"galpaca.app.b.g": 7}
