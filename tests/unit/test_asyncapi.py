"""The AsyncAPI document: current, valid AsyncAPI 3.0 in its structure, and true of the events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from millrace.schemas.asyncapi import document
from millrace.schemas.topics import BY_NAME, TOPICS
from millrace.schemas.wire import codec
from millrace.workers.commands.asyncapi import as_yaml

FILE = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"
ROOT = {"asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"}
CHANNEL = {"address", "messages", "title", "summary", "description", "servers", "parameters", "tags", "externalDocs", "bindings"}
OPERATION = {
    "action", "channel", "title", "summary", "description", "security", "tags", "externalDocs", "bindings", "traits", "messages", "reply"
}  # fmt: skip
MESSAGE = {
    "headers", "payload", "correlationId", "contentType", "name", "title", "summary", "description", "tags", "externalDocs", "bindings",
    "examples", "traits",
}  # fmt: skip
KAFKA_TOPIC = {"cleanup.policy", "retention.ms", "retention.bytes", "delete.retention.ms", "max.message.bytes"}


@pytest.fixture(scope="module")
def doc() -> dict[str, Any]:
    return document()


def at(doc: dict[str, Any], reference: str) -> Any:
    """What a reference points at; fails for one that points nowhere."""
    assert reference.startswith("#/"), reference
    for part in reference[2:].split("/"):
        doc = doc[part]
    return doc


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_file_is_current() -> None:
    assert FILE.read_text() == as_yaml(), "run: millrace asyncapi > docs/asyncapi.yaml"


def test_the_file_is_the_document(doc: dict[str, Any]) -> None:
    assert yaml.safe_load(FILE.read_text()) == doc


def test_the_root_is_asyncapi_3(doc: dict[str, Any]) -> None:
    assert set(doc) <= ROOT
    assert doc["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(doc["info"])
    assert {"host", "protocol"} <= set(doc["servers"]["local"])


def test_every_reference_points_at_something(doc: dict[str, Any]) -> None:
    found = list(references(doc))
    assert len(found) > 4 * len(TOPICS)
    for reference in found:
        assert isinstance(at(doc, reference), dict)


def test_names_of_components_are_allowed_ones(doc: dict[str, Any]) -> None:
    for kind in doc["components"].values():
        assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in kind)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_has_a_channel_a_message_and_an_operation(doc: dict[str, Any], topic: Any) -> None:
    channel = doc["channels"][topic.name]
    assert set(channel) <= CHANNEL
    assert channel["address"] == topic.name
    assert set(channel["bindings"]["kafka"]["topicConfiguration"]) <= KAFKA_TOPIC
    message = at(doc, channel["messages"][topic.name]["$ref"])
    assert set(message) <= MESSAGE
    assert at(doc, message["payload"]["$ref"])["type"] == "object"
    (operation,) = [found for found in doc["operations"].values() if found["channel"]["$ref"] == f"#/channels/{topic.name}"]
    assert set(operation) <= OPERATION
    assert operation["action"] == ("send" if topic.public else "receive")
    assert [at(doc, reference["$ref"]) for reference in operation["messages"]] == [channel["messages"][topic.name]]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_an_example_is_an_event_that_the_topic_carries(doc: dict[str, Any], topic: Any) -> None:
    message = doc["components"]["messages"][topic.name]
    (example,) = message["examples"]
    codec(BY_NAME[topic.name]).decode(msgspec.json.encode(example["payload"]))
    schema = at(doc, message["payload"]["$ref"])
    assert set(example["payload"]) <= set(schema["properties"])
    assert set(schema["required"]) <= set(example["payload"])


def test_fields_that_stay_in_their_bytes_are_shown_as_what_they_carry(doc: dict[str, Any]) -> None:
    for event in ("Request", "Prediction"):
        properties = doc["components"]["schemas"][event]["properties"]
        assert (properties["features"]["type"], properties["features"]["additionalProperties"]) == ("object", {"type": "number"})
        assert (properties["vector"]["type"], properties["vector"]["items"]) == ("array", {"type": "number"})
        assert all(field.get("description") for field in properties.values())
