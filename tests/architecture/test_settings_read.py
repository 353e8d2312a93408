"""Is every setting read? Asked of the type checker, because a name alone would pass on any namesake."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import millrace.infra.settings as settings
from millrace.infra.settings import Section
from millrace.schemas import limits
from millrace.schemas.limits import Limits
from tests.architecture.source import PACKAGE, ROOT

SECTIONS: tuple[type[Section | Limits], ...] = (*Section.__subclasses__(), Limits)
DECLARED = (Path(settings.__file__), Path(limits.__file__))
MISSING = re.compile(r'^(?P<file>[^:]+):\d+: error: .*"(?P<section>\w+)" has no attribute "(?P<key>\w+)"', re.MULTILINE)
BY_PROPERTY = {("ObjectsSettings", "folder"): ("Settings", "objects_folder"), ("StackSettings", "data"): ("StackSettings", "folder")}
"""What is read through a property, and is in effect where that is read."""
OF_SECTIONS = {("InferenceSettings", "models")}
"""What holds sections, in which each key is a setting."""


def keys() -> set[tuple[str, str]]:
    """Class and name of each setting; not of what is a section itself, or holds some."""
    every = ((section, key) for section in SECTIONS for key in section.__struct_fields__)
    return {(section.__name__, key) for section, key in every if not isinstance(getattr(section(), key), Section | Limits)} - OF_SECTIONS


def without_settings(source: str, removed: set[tuple[str, str]]) -> str:
    """A module that declares settings, without these fields and properties."""
    tree = ast.parse(source)
    for section in [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        section.body = [node for node in section.body if (section.name, declared_name(node)) not in removed] or [ast.Pass()]
    return ast.unparse(tree)


def declared_name(node: ast.stmt) -> str:
    """The name of a field or a property; empty for anything else in a class."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return node.name if isinstance(node, ast.FunctionDef) else ""


def read_elsewhere(folder: Path, removed: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of these, those that some module reads, besides the ones that declare them: what mypy misses once they are gone."""
    shutil.copytree(PACKAGE, folder / "millrace", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    declared = [path.relative_to(ROOT) for path in DECLARED]
    for path in declared:
        (folder / path).write_text(without_settings((ROOT / path).read_text(), removed))
    command = [sys.executable, "-m", "mypy", "millrace", "--cache-dir", str(folder / "cache"), "--no-error-summary", "--no-pretty"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert said.returncode == 1, said.stdout + said.stderr
    return {(found["section"], found["key"]) for found in MISSING.finditer(said.stdout) if Path(found["file"]) not in declared}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """What is read of all settings. Takes ten seconds: it is a whole run of the type checker."""
    return read_elsewhere(tmp_path_factory.mktemp("read"), keys() | set(BY_PROPERTY.values()))


def test_every_setting_is_read(read: set[tuple[str, str]]) -> None:
    assert {key for key in keys() if BY_PROPERTY.get(key, key) not in read} == set()


def test_a_namesake_does_not_count(read: set[tuple[str, str]]) -> None:
    """``folder`` is read of many things, of the stack's settings among them, and never of the endpoint's, which have none."""
    assert ("StackSettings", "folder") in read
    assert ("EndpointSettings", "folder") not in read
