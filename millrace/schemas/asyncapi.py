"""The AsyncAPI 3 document, made from the list of topics: channels, operations, messages, payloads and examples.

Operations stand from the view of a client of millrace: it sends to the public topics and receives from the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import NODEFAULT, Meta, Raw
from msgspec.structs import fields

from millrace import __version__
from millrace.schemas.event import Event
from millrace.schemas.policy_state import ContextualState
from millrace.schemas.record import Format
from millrace.schemas.samples import SAMPLES
from millrace.schemas.topics import TOPICS, Kind, Topic
from millrace.schemas.wire import SOURCE

REF = "#/components/schemas/{name}"
RAW: dict[str, tuple[Any, Callable[[], Any]]] = {
    "features": (dict[str, float], dict),
    "vector": (list[float], list),
    "contextual": (ContextualState | None, lambda: None),
}
"""What a field that stays in its own bytes carries, and what it is where it is absent."""
ABOUT = """\
millrace makes, records, tests and learns from model decisions as a stream on Kafka.

Operations are written from a client's view: a client sends to the public topics and receives from the others. Values are JSON, or
MessagePack where the `content-type` header says `application/msgpack`; there a `vector` is little-endian float32 in binary.
The headers (CloudEvents' binary mode) are optional on what a client sends. New fields have defaults, a type never changes, unknown
fields are skipped. Topics use the broker's append time. A prefix in the settings (`topic_prefix`) stands before every address.
"""


def document() -> dict[str, Any]:
    """The whole document as plain values."""
    whole = {
        "asyncapi": "3.0.0",
        "info": {"title": "millrace", "version": __version__, "description": ABOUT, "license": {"name": "Apache-2.0"}},
        "defaultContentType": Format.JSON.value,
        "servers": {
            "local": {"host": "127.0.0.1:9092", "protocol": "kafka", "description": "The one-machine stack that `millrace up` starts."}
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {_operation_name(topic): _operation(topic) for topic in TOPICS},
        "components": {
            "schemas": _schemas(),
            "messages": {topic.name: _message(topic) for topic in TOPICS},
            "messageTraits": {"cloudevents": _trait()},
        },
    }
    plain: dict[str, Any] = json.loads(msgspec.json.encode(whole))
    return plain


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "title": topic.name,
        "description": f"{topic.summary} {_kept(topic)} {_partitioned(topic)}",
        "messages": {topic.name: {"$ref": f"#/components/messages/{topic.name}"}},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                **({"partitions": 1} if topic.one_partition else {}),
                "topicConfiguration": _configuration(topic),
                "bindingVersion": "0.5.0",
            }
        },
    }


def _kept(topic: Topic) -> str:
    match topic.kind:
        case Kind.LOG:
            return f"Kept for {topic.retention_days} days."
        case Kind.CONTROL:
            return "Kept whole, in one partition; version n+1 of a name is valid only after n, and the first record of a version wins."
        case Kind.COMPACTED:
            return "Compacted: the newest record of each key is kept."
        case Kind.FOLLOWED:
            return f"In one partition, kept for {topic.retention_days} days; the newest version of a `{topic.partitioned_by}` counts."


def _partitioned(topic: Topic) -> str:
    if topic.partitioned_by is None:
        return f"Producers choose partition and key as they like; {topic.owner} alone validates it."
    return "" if topic.one_partition else f"Partitioned by murmur2 of `{topic.partitioned_by}`."


def _configuration(topic: Topic) -> dict[str, Any]:
    match topic.kind:
        case Kind.LOG | Kind.FOLLOWED:
            return {"cleanup.policy": ["delete"], "retention.ms": topic.retention_days * 86_400_000}
        case Kind.CONTROL:
            return {"cleanup.policy": ["delete"], "retention.ms": -1}
        case Kind.COMPACTED:
            return {"cleanup.policy": ["compact"]}


def _operation_name(topic: Topic) -> str:
    return ("send-" if topic.public else "receive-") + topic.name


def _operation(topic: Topic) -> dict[str, Any]:
    return {
        "action": "send" if topic.public else "receive",
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": topic.summary,
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{topic.name}"}],
    }


def _message(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.event_type,
        "title": topic.event.__name__,
        "summary": topic.summary,
        "contentType": Format.JSON.value,
        "traits": [{"$ref": "#/components/messageTraits/cloudevents"}],
        "payload": {"$ref": REF.format(name=topic.event.__name__)},
        "bindings": {"kafka": {"key": {"type": "string", "description": _key(topic)}, "bindingVersion": "0.5.0"}},
        "examples": [{"name": topic.name, "payload": json.loads(msgspec.json.encode(SAMPLES[topic.name]))}],
    }


def _key(topic: Topic) -> str:
    return f"The event's `{topic.partitioned_by}`." if topic.partitioned_by else "Anything, or none; `unit_id` is a good choice."


def _trait() -> dict[str, Any]:
    """The headers, as CloudEvents' Kafka binding names them."""
    words = {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_type": {"type": "string", "description": "io.millrace.<topic>.v1", "examples": [TOPICS[0].event_type]},
        "ce_source": {"type": "string", "description": f"`{SOURCE.decode()}` for what millrace produced."},
        "ce_id": {"type": "string", "description": "The event's id."},
        "content-type": {"type": "string", "enum": [form.value for form in Format], "default": Format.JSON.value},
        "traceparent": {"type": "string", "description": "W3C trace context, carried on from cause to effect."},
    }
    return {"headers": {"type": "object", "properties": words}}


def _schemas() -> dict[str, Any]:
    shown = [_shown(topic.event) for topic in TOPICS]
    _, components = msgspec.json.schema_components(shown, ref_template=REF)
    for schema in components.values():
        if "description" in schema:
            schema["description"] = cleandoc(schema["description"])
    return dict(sorted(components.items()))


def _shown(event: type[Event]) -> type[Any]:
    """The event's type with fields that stay in their own bytes shown as what they carry."""
    hints = get_type_hints(event, include_extras=True)
    if not any(_is_raw(hint) for hint in hints.values()):
        return event
    parts: list[Any] = []
    for field in fields(event):
        hint = hints[field.name]
        if _is_raw(hint):
            carries, absent = RAW[field.name]
            parts.append((field.name, Annotated[carries, *_notes(hint)], msgspec.field(default_factory=absent)))
        elif field.default is not NODEFAULT:
            parts.append((field.name, hint, field.default))
        elif field.default_factory is not NODEFAULT:
            parts.append((field.name, hint, msgspec.field(default_factory=field.default_factory)))
        else:
            parts.append((field.name, hint))
    return msgspec.defstruct(event.__name__, parts, kw_only=True, namespace={"__doc__": event.__doc__})


def _is_raw(hint: Any) -> bool:
    return getattr(hint, "__origin__", hint) is Raw


def _notes(hint: Any) -> tuple[Meta, ...]:
    return tuple(note for note in getattr(hint, "__metadata__", ()) if isinstance(note, Meta))
