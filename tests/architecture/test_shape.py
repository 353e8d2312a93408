"""How the code is cut: the size of modules and functions, and that nothing is swallowed or left for later."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from statistics import median

import pytest

from tests.architecture.source import ROOT, modules, name, tree

MODULE_LINES = 400
FUNCTION_LINES = 30
MEDIAN_LINES = 7
PARAMETERS = 6
ALL = pytest.mark.parametrize("path", modules(), ids=name)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> list[Function]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, Function)]


def lines(function: Function) -> int:
    """Lines of the body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameters(function: Function) -> int:
    """Parameters beside ``self``; a command line's options are declared as parameters and do not count."""
    found = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([argument for argument in found if argument.arg not in {"self", "cls"}])


@ALL
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MODULE_LINES


def test_functions_are_small() -> None:
    sizes = sorted(lines(function) for path in modules() for function in functions(path))
    assert median(sizes) <= MEDIAN_LINES
    assert sizes[int(len(sizes) * 0.9)] < FUNCTION_LINES


@ALL
def test_a_function_has_few_parameters(path: Path) -> None:
    if "workers/commands/" in str(path):
        return
    assert [function.name for function in functions(path) if parameters(function) > PARAMETERS] == []


@ALL
def test_no_assert_holds_at_run_time(path: Path) -> None:
    assert [node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.Assert)] == []


@ALL
def test_no_error_is_swallowed_without_a_word(path: Path) -> None:
    """An ``except`` that only passes hides what happened; ``contextlib.suppress`` at least names it."""
    handlers = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]
    assert [node.lineno for node in handlers if all(isinstance(statement, ast.Pass) for statement in node.body)] == []
    assert [node.lineno for node in handlers if node.type is None] == []


@ALL
def test_nothing_is_left_for_later(path: Path) -> None:
    assert re.findall(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b", path.read_text()) == []


@ALL
def test_every_module_and_public_class_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path)), "the module has no docstring"
    classes = [node for node in tree(path).body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    assert [node.name for node in classes if ast.get_docstring(node) is None] == []


def test_tests_are_collected_from_every_folder() -> None:
    """A folder of tests without ``test_*.py`` asks nothing."""
    for folder in ("unit", "contract", "property", "golden", "integration", "architecture"):
        assert list((ROOT / "tests" / folder).rglob("test_*.py")), folder
