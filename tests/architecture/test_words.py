"""One word for one thing: every event has a topic, a table and a sample, and every promise in the docs names its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import millrace.schemas as schemas
from millrace.schemas.asyncapi import document
from millrace.schemas.event import Event
from millrace.schemas.samples import SAMPLES
from millrace.schemas.tables import TABLES
from millrace.schemas.topics import BY_NAME, READERS, TOPICS
from tests.architecture.source import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
SAMPLE_FOLDER = ROOT / "tests" / "golden" / "samples"
TEST_ID = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?(?:::(\w+))?`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def events() -> list[type[Event]]:
    """Every event there is, found by class and not by list."""
    for path in Path(str(schemas.__path__[0])).glob("*.py"):
        __import__(f"millrace.schemas.{path.stem}")
    return [event for event in Event.__subclasses__() if event.__module__.startswith("millrace.schemas.")]


@pytest.mark.parametrize("event", events(), ids=lambda event: event.__name__)
def test_every_event_has_a_topic_a_table_and_a_sample(event: type[Event]) -> None:
    topics = [topic for topic in TOPICS if topic.event is event]
    assert len(topics) == 1
    assert TABLES[topics[0].name].name == topics[0].table
    assert type(SAMPLES[topics[0].name]) is event
    assert (SAMPLE_FOLDER / f"{topics[0].name}.json").exists()
    assert (SAMPLE_FOLDER / f"{topics[0].name}.msgpack").exists()


def test_names_of_topics_are_plain_and_no_two_share_a_table() -> None:
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", topic.name) for topic in TOPICS)
    assert len({topic.table for topic in TOPICS}) == len(BY_NAME) == len(TOPICS)


def test_every_public_topic_has_one_owner_and_the_archiver_reads_all() -> None:
    assert READERS["archiver"] == TOPICS
    for role, topics in READERS.items():
        assert [topic.name for topic in topics if topic.public and role not in ("archiver", topic.owner)] == []


def test_every_field_is_described() -> None:
    schemas = document()["components"]["schemas"]
    for topic in TOPICS:
        properties = schemas[topic.event.__name__]["properties"]
        assert [field for field in topic.event.__struct_fields__ if not properties[field].get("description")] == []


def test_every_promise_names_a_test_that_exists() -> None:
    rows = [line for line in (ROOT / "docs" / "guarantees.md").read_text().splitlines() if line.startswith("| ")]
    promises = [line for line in rows if not line.startswith(("| guarantee", "|---"))]
    assert len(promises) >= 10
    for line in promises:
        named = TEST_ID.findall(line.split("|")[2])
        assert named, f"this promise names no test: {line}"
        for file, *names in named:
            assert _exists(ROOT / file, [name for name in names if name]), f"{file} {names} does not exist, promised by: {line}"


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_links_and_tests_in_the_docs_lead_somewhere(doc: Path) -> None:
    text = doc.read_text()
    assert [target for target in LINK.findall(text) if not (doc.parent / target).exists()] == []
    assert [file for file, *names in TEST_ID.findall(text) if not _exists(ROOT / file, [name for name in names if name])] == []


def _exists(file: Path, names: list[str]) -> bool:
    """Whether a file has this test: a function, or a class and its method."""
    if not file.exists():
        return False
    body: list[ast.stmt] = ast.parse(file.read_text()).body
    for name in names:
        found = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name]
        if not found:
            return False
        body = found[0].body
    return True
