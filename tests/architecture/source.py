"""What the package's modules import and call, read from their syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "millrace"
FOLDERS = ("schemas", "streams", "infra", "workers")


@cache
def modules() -> tuple[Path, ...]:
    """Every module of the package."""
    return tuple(sorted(path for path in PACKAGE.rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(path.read_text(), str(path))


def name(path: Path) -> str:
    """A module's place for messages: ``infra/kafka/clients.py``."""
    return str(path.relative_to(PACKAGE))


def folder(path: Path) -> str:
    """The kind of word that a module holds."""
    return path.relative_to(PACKAGE).parts[0]


def imports(path: Path) -> Iterator[str]:
    """The full names that a module imports, also inside its functions and for types alone."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{name(path)}: write imports in full, not relative ones")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def roots(path: Path) -> set[str]:
    """The top-level packages that a module imports."""
    return {imported.split(".")[0] for imported in imports(path)}


def attributes(path: Path) -> Iterator[str]:
    """Every ``a.b`` that a module names, for plain names ``a``."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
