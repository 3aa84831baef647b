"""What a user may type stays as it is, unless somebody decides otherwise: ``surface.txt`` holds all of it."""

import difflib

import make_surface

DECISION = """\
The surface of the command line or the configuration has changed:

{difference}
Scripts of users call it, and the recipes of their runs name it. If the change is meant:
  - run make surface and commit tests/surface/surface.txt along with it;
  - run make reference, and say in CHANGELOG.md what a user has to change;
  - refuse an old option, key or file that is gone or renamed, with the new name;
  - let runs that were started with an old key or default resume.
"""


def test_the_surface_is_what_it_was() -> None:
    frozen = make_surface.FILE.read_text(encoding="utf-8").splitlines()
    lines = difflib.unified_diff(frozen, make_surface.surface().splitlines(), "frozen", "now", lineterm="", n=0)
    difference = "".join(f"  {line}\n" for line in lines if not line.startswith(("---", "+++", "@@")))
    assert not difference, DECISION.format(difference=difference)


def test_the_file_holds_a_line_of_each_kind() -> None:
    """A script that finds nothing freezes nothing."""
    lines = make_surface.surface().splitlines()
    for line in (
        "galpaca export RUN_OR_CHECKPOINT OUT",
        "    --out: str, required",
        "    --dtype: float32 | bfloat16 | float16, default null",
        "    --instruct, --no-instruct: default null",
        "    --field: str, repeatable, default []",
        "run.name: str, required",
        "batch.examples: int = 128",
        "data.fields.instruction: str | None = null",
        "    strategy.sharding_strategy = FULL_SHARD",
        "trainer: cpu gpu*",
    ):
        assert line in lines
