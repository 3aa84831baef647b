"""Counts the structure of the package: rooms, arrows, circles, parameters, records indexed by strings, lines of code.

    python scripts/count_structure.py [CHECKOUT] [--list]

A room is a file or folder directly in a package; an arrow, imports from one room to another, however many. All imports
count, those inside functions and those for type checkers too. A circle is a group of modules that import each other,
directly or through others. A file indexes a record by strings if it reads a key of ``run.json``, ``metrics.jsonl``,
``samples.jsonl`` or a manifest as ``record["key"]`` or ``record.get("key")``.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

MOST_PARAMETERS = 6
# Keys of the records that only these files have; shorter ones (``loss``, ``step``) are found in other records too.
RECORD_KEYS = frozenset(
    {
        *("starts", "recipe", "former_recipes", "receipt", "plan", "whole_plan", "weights", "release", "final"),
        *("histograms", "parameters", "ended", "created", "machine"),
        *("loss", "val_loss", "step_seconds", "grad_norm", "target_tokens", "tokens_per_second", "peak_memory_bytes"),
        *("spike", "skipped", "non_finite", "rolled_back_to", "train_seconds", "first_loss"),
    }
)


def modules(source: Path) -> dict[str, ast.Module]:
    """Every module below ``source`` by its dotted name, parsed."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = (source.name, *path.relative_to(source).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """The modules of ``trees`` that each of them imports."""
    return {name: set(_imported(name, tree, trees)) - {name} for name, tree in trees.items()}


def _imported(name: str, tree: ast.Module, trees: Mapping[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in trees)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in trees:
                    yield inner
                elif base in trees:
                    yield base


def rooms(source: Path, package: str) -> list[str]:
    """Files and folders directly in a package, its ``__init__.py`` left out."""
    folder = source / package
    return sorted(
        path.stem
        for path in folder.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path.is_dir() and any(path.glob("*.py")))
    )


def arrows(graph: Mapping[str, set[str]], package: str) -> set[tuple[str, str]]:
    """Pairs of rooms of a package of which the first imports the second."""
    prefix = f"galpaca.{package}."

    def room(module: str) -> str | None:
        return module.removeprefix(prefix).split(".")[0] if module.startswith(prefix) else None

    pairs = {(room(module), room(other)) for module, others in graph.items() for other in others}
    return {(first, second) for first, second in pairs if first and second and first != second}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other. A package's ``__init__`` counts as what it imports itself."""
    reached = {name: _reached(graph, name) for name in graph}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    open_ = [start]
    while open_:
        for other in graph[open_.pop()] - found:
            found.add(other)
            open_.append(other)
    return found


def wide_functions(trees: Mapping[str, ast.Module], most: int = MOST_PARAMETERS) -> dict[str, int]:
    """Functions with more parameters than ``most``, ``self`` and ``cls`` not counted, with their number."""
    found = {}
    for module, tree in trees.items():
        for owner, node in _functions(tree):
            arguments = node.args
            names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            number = len(names) - (names[:1] in (["self"], ["cls"]))
            if number > most:
                found[f"{module}.{owner}{node.name}"] = number
    return found


def _functions(node: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield owner, child
        inner = f"{owner}{child.name}." if isinstance(child, ast.ClassDef) else owner
        yield from _functions(child, inner)


def string_indexed(trees: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """Modules that read keys of the run folder's records by strings, with the keys."""
    found = {module: sorted(set(_string_keys(tree)) & RECORD_KEYS) for module, tree in trees.items()}
    return {module: keys for module, keys in found.items() if keys}


def _string_keys(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            if isinstance(node.slice.value, str):
                yield node.slice.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".get"):
            yield from (
                one.value for one in node.args[:1] if isinstance(one, ast.Constant) and isinstance(one.value, str)
            )


def lines_of_code(source: Path) -> int:
    """Lines that hold anything but docstrings, comments and blanks."""
    return sum(_code_lines(path.read_text(encoding="utf-8")) for path in source.rglob("*.py"))


def _code_lines(text: str) -> int:
    docs = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
        and isinstance(node.body[0].value.value, str)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - docs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--list", action="store_true", help="also name what is counted")
    options = parser.parse_args()
    source = options.checkout / "src" / "galpaca"
    trees = modules(source)
    graph = imports(trees)
    counted = {
        "rooms in app/": [*rooms(source, "app")],
        "arrows in app/": [f"{first} -> {second}" for first, second in sorted(arrows(graph, "app"))],
        "circles of modules": [" <-> ".join(one) for one in circles(graph)],
        f"functions over {MOST_PARAMETERS} parameters": [
            f"{name} ({number})" for name, number in sorted(wide_functions(trees).items())
        ],
        "modules outside runs/ with string-indexed records": [
            f"{module}: {', '.join(keys)}"
            for module, keys in string_indexed(trees).items()
            if not module.startswith("galpaca.runs")
        ],
    }
    for title, names in counted.items():
        print(f"{len(names):>6,}  {title}")
        for name in names if options.list else ():
            print(f"          {name}")
    print(f"{len(trees):>6,}  modules")
    print(f"{lines_of_code(source):>6,}  lines of code")


if __name__ == "__main__":
    main()
