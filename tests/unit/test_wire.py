"""Does the wire say where a payload is wrong, and carry on what it must?"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millrace.infra.kafka.partition import murmur2
from millrace.schemas import wire
from millrace.schemas.errors import DecodeError
from millrace.schemas.record import Format, Record
from millrace.schemas.topics import MODELS, PREDICTIONS, REQUESTS, ROUTES, Topic
from tests.models import manifest, route

LEAST = b'{"id":"r-1","unit_id":"u-1","model":"m","features":{"a":1}}'


def test_the_least_request_needs_no_header_and_nothing_else() -> None:
    request = wire.codec(REQUESTS).decode(LEAST)
    assert (request.id, request.unit_id, request.model, request.time, request.deadline) == ("r-1", "u-1", "m", None, None)


@pytest.mark.parametrize(
    ("topic", "field", "value", "says"),
    [
        (ROUTES, "shares", [{"version": 1, "weight": 1e308}, {"version": 2, "weight": 1e308}], "$.shares[0].weight"),
        (ROUTES, "shares", [], "$.shares"),
        (MODELS, "outputs", [], "$.outputs"),
        (MODELS, "features", [], "$.features"),
    ],
)
def test_a_control_record_that_no_worker_could_live_with_is_refused(topic: Topic, field: str, value: Any, says: str) -> None:
    good = route() if topic is ROUTES else manifest()
    tree = msgspec.json.decode(wire.codec(topic).encode(good))
    assert wire.codec(topic).decode(msgspec.json.encode(tree)) == good
    with pytest.raises(DecodeError) as error:
        wire.codec(topic).decode(msgspec.json.encode(tree | {field: value}))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b'{"id":"r","unit_id":7}', "$.unit_id"),
        (b'{"id":"r"}', "unit_id"),
        (b'{"id":"r","unit_id":"u","context":[1]}', "$.context"),
        (b'{"id":"r","unit_id":"u","features":{"a":NaN}}', "byte"),
        (b'{"id":"r","unit_id":"u","time":"2026-11-21T00:00:00"}', "$.time"),
        (b'{"id":"r","unit_id":"u","entities":{"card":5}}', "$.entities[...]"),
        (b"", "truncated"),
        (b"\xff\xfe", "byte"),
        (b'{"id":"r","unit_id":"\xff"}', "utf-8"),
        (b'{"id":"r","unit_id":"u","x":' + b"[" * 100_000, "recursion"),
        (None, "no value"),
    ],
)
def test_a_wrong_payload_is_refused_with_the_place(value: bytes | None, says: str) -> None:
    with pytest.raises(DecodeError) as error:
        wire.codec(REQUESTS).decode(value)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "name", [b"application/msgpack", b"application/x-msgpack", b"application/vnd.msgpack", b"Application/MsgPack; v=1"]
)
def test_messagepack_is_known_by_its_names(name: bytes) -> None:
    assert wire.format_of([("content-type", name)]) is Format.MSGPACK


def test_an_unknown_content_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DecodeError, match="application/json, application/msgpack"):
        wire.codec(REQUESTS).decode(LEAST, [("content-type", b"text/xml")])


def test_unknown_fields_are_skipped() -> None:
    assert wire.codec(REQUESTS).decode(LEAST[:-1] + b',"later":{"x":[1]}}').id == "r-1"


def test_reading_a_record_sets_its_event_and_form() -> None:
    record = Record("requests", 0, 0, 1, None, LEAST, [("content-type", b"application/json")])
    wire.codec(REQUESTS).read(record)
    assert (record.event.id, record.form) == ("r-1", Format.JSON)


def test_cloudevents_headers_and_the_trace_are_carried_on() -> None:
    headers = wire.codec(PREDICTIONS).headers("p-1", Format.MSGPACK, [("traceparent", b"00-a-b-01"), ("other", b"x")])
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"io.millrace.predictions.v1",
        "ce_source": b"/millrace",
        "content-type": b"application/msgpack",
        "ce_id": b"p-1",
        "traceparent": b"00-a-b-01",
    }


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_murmur2_is_kafkas_own(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed & 0xFFFFFFFF


def test_headers_that_cannot_be_read_are_refused_in_words_of_their_own() -> None:
    with pytest.raises(DecodeError, match="the name of a header is not UTF-8"):
        wire.codec(REQUESTS).decode(LEAST, wire.UNREADABLE_HEADERS)


@pytest.mark.parametrize("value", [b"\x01" * 1_000_000, b"\xff" * 1_000_000, b"a" * 1_000_000])
def test_a_reason_does_not_quote_the_whole_of_what_it_is_about(value: bytes) -> None:
    with pytest.raises(DecodeError) as error:
        wire.codec(REQUESTS).decode(LEAST, [("content-type", value)])
    assert len(str(error.value)) < wire.REASON_CHARACTERS + 300
    unknown = msgspec.json.encode({"id": "p", "request_id": "r", "unit_id": "u", "status": value.decode("latin-1")})
    with pytest.raises(DecodeError) as error:
        wire.codec(PREDICTIONS).decode(unknown)
    assert len(str(error.value)) <= wire.REASON_CHARACTERS
