"""The shape of the package, counted: no circles, few arrows, few parameters, records with types."""

from pathlib import Path

from count_structure import arrows, circles, imports, modules, rooms, string_indexed, wide_functions

import galpaca

SOURCES = Path(galpaca.__file__).parent

# Functions whose parameters are not theirs to choose.
WIDE = {
    "galpaca.model.attention.packed_attention": "transformers calls it, with the parameters of all attention functions",
    "galpaca.training.optimizers.piecewise_adamw.PiecewiseAdamW.__init__": (
        "those of torch.optim.AdamW, and what it lacks"
    ),
    "galpaca.training.loggers.wandb": "all but two are keys of conf/logger/wandb.yaml, which are flat",
}

# Modules that read keys of the same names in other files and mappings than the records of a run folder.
OTHER_FILES = {
    "galpaca.app.evaluation.evaluate": "results of galpaca evaluate",
    "galpaca.release.evaluation": "results of galpaca evaluate",
    "galpaca.report.comparison": "results of galpaca evaluate",
    "galpaca.data.cache": "the receipt of a cache of encoded examples",
    "galpaca.tracking.rows": "names of W&B's figures",
}


def test_no_modules_import_each_other() -> None:
    assert circles(imports(modules(SOURCES))) == []


def test_app_has_few_rooms_and_few_arrows() -> None:
    """There were 45 rooms and 116 arrows once, and nobody found a file in one guess."""
    assert len(rooms(SOURCES, "app")) <= 25
    assert len(arrows(imports(modules(SOURCES)), "app")) <= 60


def test_functions_have_few_parameters() -> None:
    """There were functions of fourteen. A line of the table that is no longer needed fails, too."""
    assert wide_functions(modules(SOURCES)).keys() == WIDE.keys()


def test_only_the_runs_package_reads_the_records_of_a_run_by_strings() -> None:
    """A key that was misspelled, or renamed in one of 21 modules, was found by a user. Others read typed fields."""
    found = string_indexed(modules(SOURCES))
    assert {name for name in found if not name.startswith("galpaca.runs.")} == OTHER_FILES.keys()


def test_the_counting_finds_what_it_looks_for(tmp_path: Path) -> None:
    source = tmp_path / "galpaca"
    (source / "app" / "wing").mkdir(parents=True)
    (source / "app" / "wing" / "a.py").write_text("def f():\n    from galpaca.app import b\n")
    (source / "app" / "b.py").write_text("from galpaca.app.wing.a import f\ndef g(a, b, c, *, d, e, f, h=1): ...\n")
    (source / "app" / "c.py").write_text("class C:\n    def m(self, a, b, c, d, e, f): ...\nimport galpaca.app.b\n")
    (source / "d.py").write_text("def f(line, lines):\n    line['loss']\n    lines[0].get('spike')\n    line['else']\n")
    trees = modules(source)
    assert rooms(source, "app") == ["b", "c", "wing"]
    assert arrows(imports(trees), "app") == {("b", "wing"), ("wing", "b"), ("c", "b")}
    assert circles(imports(trees)) == [["galpaca.app.b", "galpaca.app.wing.a"]]
    assert wide_functions(trees) == {"galpaca.app.b.g": 7}
    assert string_indexed(trees) == {"galpaca.d": ["loss", "spike"]}
