"""A module imports from floors below its own, never up, never sideways between packages of one floor.

All imports count for the direction: those inside functions and those for type checkers too, since a floor is about
what a module knows, not about when it is loaded. For what must be imported late, only what runs at import counts.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import galpaca

SOURCES = Path(galpaca.__file__).parent

# The packages of each floor, lowest first. The doors may know each other: they are one package in three files.
FLOORS = [
    {"errors", "files", "formatting", "shell"},
    {"data", "runs", "estimate", "fake_cuda"},
    {"model", "tracking"},
    {"training", "release", "inference", "report"},
    {"app"},
    {"doors"},
]
DOORS = {"cli", "train", "notebook", "__main__"}
FLOOR_OF = {package: number for number, packages in enumerate(FLOORS) for package in packages}

_FORMULAS = dict.fromkeys(["latex2mathml", "markupsafe"], "galpaca.report.formulas")
# What a package may import beside the standard library. A module or package behind it: only there.
LIBRARIES: dict[str, dict[str, str | None]] = {
    "errors": {},
    "formatting": {},
    "shell": {},
    # Reading and replacing files must be quick to load.
    "files": {"filelock": "galpaca.files.build_once"},
    "data": {
        "numpy": None,
        "pyarrow": "galpaca.data.sources",
        "datasets": "galpaca.data.sources",
        "rdkit": "galpaca.data.grouping",
        "yaml": None,
        "transformers": "galpaca.data.tokenizer",
        "huggingface_hub": "galpaca.data.listed_ends",
        "torch": "galpaca.data.collate",
    },
    "runs": {"yaml": "galpaca.runs.configuration"},
    "estimate": dict.fromkeys(["numpy"]),
    "fake_cuda": dict.fromkeys(["torch"]),
    "model": dict.fromkeys(["numpy", "torch", "transformers", "safetensors"]),
    "tracking": dict.fromkeys(["wandb"]),
    "training": dict.fromkeys(["numpy", "torch", "transformers", "safetensors", "lightning"]),
    "release": {
        **dict.fromkeys(["numpy", "torch", "transformers", "safetensors", "huggingface_hub", "yaml"]),
        "jinja2": "galpaca.release.card",
    },
    "report": {**dict.fromkeys(["numpy", "yaml"]), "jinja2": "galpaca.report.page", **_FORMULAS},
    "inference": {
        **dict.fromkeys(["numpy", "torch", "transformers"]),
        "huggingface_hub": "galpaca.inference.hub",
        "lm_eval": "galpaca.inference.harness",
    },
    "app": {
        **dict.fromkeys(["numpy", "torch", "transformers", "lightning", "rich", "yaml", "hydra", "omegaconf"]),
        "gradio": "galpaca.app.chat.blocks",
        "huggingface_hub": "galpaca.app.prepared.hub",
    },
    "doors": {"pandas": "galpaca.notebook"},
}

# Heavy or optional: the core runs without them.
LATE = {"wandb", "hydra", "datasets", "gradio", "lm_eval", "rdkit"}

# Imports that break a rule on purpose: (module, imported module) to the reason.
EXCEPTIONS: dict[tuple[str, str], str] = {}


class Import(NamedTuple):
    """One import: what, in which line, and whether it runs when the module is loaded."""

    name: str
    line: int
    at_load: bool


def module_name(path: Path) -> str:
    parts = ("galpaca", *path.relative_to(SOURCES).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, str]:
    """Text of every module of the package."""
    return {module_name(path): path.read_text(encoding="utf-8") for path in sorted(SOURCES.rglob("*.py"))}


def package_of(module: str) -> str | None:
    """The floor's package that a module belongs to; None for ``galpaca`` itself, which holds the version only."""
    second = module.split(".")[1] if "." in module else None
    return "doors" if second in DOORS else second


def imports(source: str, module: str = "galpaca.data.some") -> list[Import]:
    return list(_walk(ast.parse(source), module, at_load=True))


def _walk(node: ast.AST, module: str, at_load: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, at_load) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = module.split(".")[: -node.level] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        # ``from galpaca import data`` imports a package, not a name of the package ``galpaca``.
        names = [f"{base}.{alias.name}" for alias in node.names] if base == "galpaca" or not node.module else [base]
        yield from (Import(name, node.lineno, at_load) for name in names)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for statement in node.body:
            yield from _walk(statement, module, at_load=False)
        for statement in node.orelse:
            yield from _walk(statement, module, at_load)
    else:
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, module, at_load and not inside)


def violations(module: str, source: str) -> list[str]:
    package = package_of(module)
    return [
        f"{module}:{found.line} imports {found.name}: {reason}"
        for found in imports(source, module)
        if (module, found.name) not in EXCEPTIONS and (reason := _reason(module, package, found))
    ]


def _reason(module: str, package: str | None, found: Import) -> str | None:
    top = found.name.split(".")[0]
    if top == "galpaca":
        return _wrong_floor(package, package_of(found.name))
    if top in sys.stdlib_module_names:
        return None
    if package is None or top not in LIBRARIES[package]:
        return "no library of this floor"
    only = LIBRARIES[package][top]
    if only and module != only and not module.startswith(f"{only}."):
        return f"only {only} may"
    return "not at load time" if top in LATE and found.at_load and package != "app" else None


def _wrong_floor(package: str | None, other: str | None) -> str | None:
    if other not in FLOOR_OF:  # ``galpaca`` itself and its ``__version__``
        return None
    if package is None:
        return "the package itself imports nothing"
    if package == other or FLOOR_OF[other] < FLOOR_OF[package]:
        return None
    return "up" if FLOOR_OF[other] > FLOOR_OF[package] else "sideways"


@pytest.mark.parametrize("module", modules())
def test_a_module_keeps_to_its_floor(module: str) -> None:
    assert violations(module, modules()[module]) == []


def test_every_package_has_a_floor() -> None:
    """A new package without a floor would be held to none."""
    found = {package_of(module) for module in modules()} - {None}
    assert found <= FLOOR_OF.keys()
    assert FLOOR_OF.keys() == LIBRARIES.keys()


def test_every_exception_is_needed_and_has_a_reason() -> None:
    for (module, name), reason in EXCEPTIONS.items():
        assert name in [found.name for found in imports(modules()[module], module)]
        assert reason


# Where a module is imported by its name on purpose.
BY_NAME = {
    "galpaca.model.tuning.recipe": "a run may be tuned with a method of its user's own",
    "galpaca.model.families.known": "a model may be of a family of its user's own",
}


@pytest.mark.parametrize("module", [name for name in modules() if name not in BY_NAME])
def test_no_module_is_imported_by_its_name_in_a_string(module: str) -> None:
    """The floors would not see it."""
    names = {node.id for node in ast.walk(ast.parse(modules()[module])) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(ast.parse(modules()[module])) if isinstance(node, ast.Attribute)}
    assert not {"import_module", "__import__"} & (names | attributes)


def test_train_py_is_a_door() -> None:
    """The file in the repository's root is a door like the module of the package."""
    source = (Path(__file__).parents[2] / "train.py").read_text(encoding="utf-8")
    assert violations("galpaca.train", source) == []
    assert {found.name for found in imports(source)} == {"sys", "galpaca.app.entrypoint"}


class TestTheReader:
    """What this file would not find, it would not hold."""

    @pytest.mark.parametrize(
        ("module", "source", "message"),
        [
            ("galpaca.data.plan", "import galpaca.app.train.run", "up"),
            ("galpaca.data.plan", "from galpaca.runs import lock", "sideways"),
            ("galpaca.data.plan", "from galpaca import runs", "sideways"),
            ("galpaca.data.plan", "from ..runs.lock import locked", "sideways"),
            ("galpaca.data.plan", "from .. import runs", "sideways"),
            ("galpaca.data", "from galpaca.model import opt", "up"),
            ("galpaca.release.card", "def f():\n    from galpaca.training import specs", "sideways"),
            ("galpaca.model.opt", "class A:\n    async def f(self):\n        import galpaca.training.specs", "up"),
            ("galpaca.model.opt", "if TYPE_CHECKING:\n    from galpaca.training.specs import Spec", "up"),
            ("galpaca.model.opt", "try:\n    from galpaca.app.train.run import x\nexcept ImportError:\n    pass", "up"),
            ("galpaca.app.train.run", "from galpaca.cli import main", "up"),
            ("galpaca.errors", "from galpaca.data.plan import pack", "up"),
            ("galpaca", "from galpaca.errors import InputError", "the package itself"),
            ("galpaca.runs.record", "import numpy as np", "no library"),
            ("galpaca.training.module", "from hydra.utils import instantiate", "no library"),
            ("galpaca.training.module", "def f():\n    import omegaconf", "no library"),
            ("galpaca.data.plan", "import torch.distributed", "only galpaca.data.collate"),
            ("galpaca.data.collate", "def f():\n    import transformers", "only galpaca.data.tokenizer"),
            ("galpaca.data.sources", "import datasets", "not at load time"),
            ("galpaca.tracking.service", "try:\n    import wandb\nexcept ImportError:\n    pass", "not at load time"),
            ("galpaca.cli", "import rich", "no library"),
        ],
    )
    def test_a_wrong_import_is_found(self, module: str, source: str, message: str) -> None:
        (found,) = violations(module, source)
        assert message in found

    @pytest.mark.parametrize(
        ("module", "source"),
        [
            ("galpaca.data.plan", "from galpaca.errors import InputError\nfrom .split import sides_of"),
            ("galpaca.release.export", "from galpaca.data.prompts import Template\nimport galpaca.runs.folder"),
            ("galpaca.model.opt", "if TYPE_CHECKING:\n    from galpaca.data.tokenizer import Tokenizer"),
            ("galpaca.release.card", "from galpaca import __version__"),
            ("galpaca.data.sources", "def f():\n    import datasets"),
            ("galpaca.tracking.service", "if TYPE_CHECKING:\n    import wandb"),
            ("galpaca.app.config.schema", "import hydra\nfrom omegaconf import DictConfig"),
            ("galpaca.__main__", "from galpaca.cli import main"),
        ],
    )
    def test_a_right_import_passes(self, module: str, source: str) -> None:
        assert violations(module, source) == []


HEAVY = {"torch", "transformers", "lightning", "datasets", "pyarrow", "wandb", "hydra", "omegaconf"}
LIGHT_MODULES = [
    *(name for name in modules() if name.startswith("galpaca.data.") and name != "galpaca.data.collate"),
    *(name for name in modules() if name.startswith(("galpaca.files.", "galpaca.runs.", "galpaca.tracking."))),
    "galpaca.cli",
    "galpaca.training.specs",
]


def test_what_must_be_quick_loads_nothing_heavy() -> None:
    """A mistake in a file or an option was reported after twenty seconds of imports, on some clusters after minutes."""
    script = f"import sys\nimport {', '.join(LIGHT_MODULES)}\nprint(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
