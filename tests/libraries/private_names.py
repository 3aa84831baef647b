"""Reads from the source of ``galpaca`` which private names of other libraries it uses.

A name is private if it, or the module or object that it is reached through, starts with an underscore. Found are

- imports and chains of attributes that begin at an import, under their full name: ``torch._dynamo.mark_dynamic``;
- other attributes that neither the class (``self._x``) nor the module (``x._y``) defines, with a dot in front and with
  what is read of them: ``._handle.reshard``;
- the same as strings, for ``getattr`` and prefixes of names;
- what a class overrides of a library's class, on purpose or by accident: the base's full name.

The standard library is left out: its underscores are old and stay.
"""

import ast
import inspect
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import takewhile
from typing import Any, NamedTuple

_NAMED = re.compile(r"(_[a-zA-Z]\w*)\.?")
_DOTTED = re.compile(r"[a-z]\w*(\.\w+)+")


class Use(NamedTuple):
    """A private name, and where it is used."""

    name: str
    where: str


def is_private(name: str) -> bool:
    """Not so ``__name__`` and Hydra's own keywords, such as ``_target_``."""
    return name.startswith("_") and not name.endswith("_")


def uses_of(module: str, source: str) -> Iterator[Use]:
    """All uses in a module but overrides, for which it must be imported."""
    reader = _Reader(module, ast.parse(source))
    yield from (Use(name, f"{module}:{line}") for name, line in reader.found)


def overrides_of(module: str, source: str) -> Iterator[Use]:
    """What the module's classes define anew of libraries' classes that they derive from.

    Of a private class that one derives from directly, its public names count too.
    """
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            kind = getattr(import_module(module), node.name)
            for name in sorted(_defined_in(node)):
                base = _overridden(kind, name)
                if base and (is_private(name) or (is_private(base.__name__) and base in kind.__bases__)):
                    yield Use(f"{base.__module__}.{base.__qualname__}.{name}", f"{module}:{node.lineno}")


def look_up(name: str) -> Any:
    """What a dotted name stands for: a module, or what attributes lead to from one.

    Returns:
        None for an attribute that only instances have.

    Raises:
        AttributeError, ModuleNotFoundError: it is gone.
    """
    first, *rest = name.split(".")
    found: Any = import_module(first)
    path = first
    for part in rest:
        path = f"{path}.{part}"
        if isinstance(found, type) and not hasattr(found, part) and part in _set_on_self(found):
            return None
        if inspect.ismodule(found) and not hasattr(found, part):
            import_module(path)
        found = getattr(found, part)
    return found


def callers_of(method: str, package: str) -> list[str]:
    """Files of a library's package that call a method of that name."""
    (folder,) = import_module(package).__path__
    files = pathlib.Path(folder).rglob("*.py")
    return [str(path) for path in files if re.search(rf"\.{method}\(", path.read_text(encoding="utf-8"))]


def _overridden(kind: type, name: str) -> type | None:
    """The nearest class of a library that defines the name."""
    libraries = (base for base in kind.__mro__[1:] if _is_library(base.__module__))
    return next((base for base in libraries if name in vars(base) or name in _set_on_self(base)), None)


def _is_library(module: str) -> bool:
    top = module.split(".")[0]
    return top != "galpaca" and top not in sys.stdlib_module_names


class _Reader(ast.NodeVisitor):
    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module = module
        self.found: list[tuple[str, int]] = []
        self.imported = dict(_imports(tree))
        self.own_of_module = _defined_in(tree)
        self.own_of_class = [self.own_of_module]
        self.visit(tree)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._note(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if not node.level:
            for alias in node.names:
                self._note(f"{node.module}.{alias.name}", node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.own_of_class.append(self._own(node))
        self.generic_visit(node)
        self.own_of_class.pop()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        names, base = _chain(node)
        self.visit(base)
        root = base.id if isinstance(base, ast.Name) else None
        if root in self.imported:
            self._note(".".join([self.imported[root], *names]), node)
            return
        first = next((place for place, name in enumerate(names) if is_private(name)), None)
        if first is None:
            return
        own = self.own_of_class[-1] if root in ("self", "cls") and first == 0 else self.own_of_module
        if names[first] not in own:
            read = takewhile(lambda name: name not in _OF_CONTAINERS, names[first:])
            self.found.append((f".{'.'.join(read)}", node.lineno))

    def visit_Call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg and is_private(keyword.arg):
                self.found.append((f"{keyword.arg}=", node.lineno))
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("endswith", "removesuffix"):
            self.visit(node.func)  # the end of a name is none
        else:
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if not isinstance(node.value, str):
            return
        if match := _NAMED.fullmatch(node.value):
            if is_private(match[1]) and match[1] not in self.own_of_module:
                self.found.append((f".{match[1]}", node.lineno))
        elif _DOTTED.fullmatch(node.value) and node.value.split(".")[0] in _LIBRARIES:
            self._note(node.value, node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        for value in node.values:  # its constants are pieces of text, not names
            if isinstance(value, ast.FormattedValue):
                self.visit(value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # else a docstring
            self.generic_visit(node)

    def _note(self, name: str, node: ast.stmt | ast.expr) -> None:
        if _is_library(name) and any(map(is_private, name.split("."))):
            self.found.append((name, node.lineno))

    def _own(self, node: ast.ClassDef) -> set[str]:
        """What a class defines and, where it can be found by its name, what its bases of ours define."""
        kind = None
        if len(self.own_of_class) == 1 and self.module in sys.modules:
            kind = getattr(sys.modules[self.module], node.name, None)
        bases = [] if kind is None else [base for base in kind.__mro__[1:] if not _is_library(base.__module__)]
        return _defined_in(node).union(*(_defined_in(_tree_of(base)) for base in bases))


# Those that a dotted string may name.
_LIBRARIES = ("torch", "lightning", "transformers", "hydra", "omegaconf", "wandb", "rich")
# What is read of a dictionary or list is nothing of the library's.
_OF_CONTAINERS = {"append", "get", "items", "keys", "pop", "update", "values"}


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local names and what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _chain(node: ast.expr) -> tuple[list[str], ast.expr]:
    """``a.b.c`` as ``[b, c]`` and ``a``."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return names, node


def _defined_in(tree: ast.AST) -> set[str]:
    """Names that a module or a class defines: functions, classes, variables, attributes of ``self``."""
    found = set(_set_on_self_in(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def _set_on_self_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names, base = _chain(node)
            if len(names) == 1 and isinstance(base, ast.Name) and base.id in ("self", "cls"):
                yield node.attr


@cache
def _tree_of(kind: type) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):  # written in C, or made at run time
        return ast.Module([], [])


@cache
def _set_on_self(kind: type) -> set[str]:
    """Attributes that a class, not its bases, gives to its instances."""
    return set(_set_on_self_in(_tree_of(kind)))
