"""Bytes to events and back: JSON by default, MessagePack where the ``content-type`` header says so.

CloudEvents' binary mode: the event's attributes stand in ``ce_`` headers, the value is the event alone. All of these
headers are optional on what comes in; ``traceparent`` is carried on from cause to effect.

How events evolve: new fields have defaults; a type never changes; unknown fields are skipped; last year's bytes still decode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import xxhash

from millrace.schemas.errors import DecodeError
from millrace.schemas.event import Event
from millrace.schemas.record import Format, Headers, Record
from millrace.schemas.topics import Topic

E = TypeVar("E", bound=Event)

SOURCE = b"/millrace"
CONTENT_TYPE = "content-type"
TRACEPARENT = "traceparent"
TRACEPARENT_BYTES = 256
"""A longer one is not carried on: the W3C's has 55, and what a producer sends may not decide how large our own records are."""
REASON_CHARACTERS = 500
"""How long a reason may be: it may quote what it is about."""
UNREADABLE = b"application/vnd.millrace.unreadable-headers"
UNREADABLE_HEADERS: Headers = [(CONTENT_TYPE, UNREADABLE)]
"""What stands for the headers of a record of which a header's name is not UTF-8: none of them can be read, so neither can the record."""


FORMATS: dict[bytes, Format] = {
    b"application/json": Format.JSON,
    b"application/msgpack": Format.MSGPACK,
    b"application/x-msgpack": Format.MSGPACK,
    b"application/vnd.msgpack": Format.MSGPACK,
}


def format_of(headers: Headers | None) -> Format:
    """The format that a record's headers name; JSON where they name none. Raises DecodeError for one that is not known."""
    if headers:
        for name, value in headers:
            if name == CONTENT_TYPE:
                return FORMATS.get(value) or _parse_content_type(value)
    return Format.JSON


def _parse_content_type(value: bytes | None) -> Format:
    essence = (value or b"").split(b";")[0].strip().lower()
    if essence in FORMATS:
        return FORMATS[essence]
    if value == UNREADABLE:
        raise DecodeError("the name of a header is not UTF-8, so that none of the headers can be read: name them in UTF-8")
    known = ", ".join(sorted({form.value for form in Format}))
    raise DecodeError(f"content-type {essence[:100].decode(errors='replace')!r} is not known: send {known}, or no such header")


class Coding(Generic[E]):
    """One topic's events in one format: ``decode``, ``encode``, and the headers that all of them carry."""

    __slots__ = ("decode", "encode", "static")

    def __init__(self, topic: Topic, event: type[E], form: Format) -> None:
        binary = form is Format.MSGPACK
        self.decode: Callable[[bytes], E] = (msgspec.msgpack.Decoder(event) if binary else msgspec.json.Decoder(event)).decode
        self.encode: Callable[[E], bytes] = (msgspec.msgpack.Encoder() if binary else msgspec.json.Encoder()).encode
        self.static: Headers = [
            ("ce_specversion", b"1.0"),
            ("ce_type", topic.event_type.encode()),
            ("ce_source", SOURCE),
            (CONTENT_TYPE, form.value.encode()),
        ]


class Codec(Generic[E]):
    """Decodes and encodes the events of one topic. ``coding(form)`` is what a loop over many events takes its functions from."""

    def __init__(self, topic: Topic, event: type[E]) -> None:
        self.topic = topic
        self.json = Coding(topic, event, Format.JSON)
        self.msgpack = Coding(topic, event, Format.MSGPACK)

    def coding(self, form: Format) -> Coding[E]:
        """The functions of one format."""
        return self.json if form is Format.JSON else self.msgpack

    def decode(self, value: bytes | None, headers: Headers | None = None) -> E:
        """The event in a record's value. Raises DecodeError that says where in the payload and what was expected."""
        return self._decoded(value, format_of(headers))

    def read(self, record: Record) -> None:
        """Decode a record in place: its event and its form. Raises DecodeError."""
        form = Format.JSON if record.headers is None else format_of(record.headers)
        record.event = self._decoded(record.value, form)
        record.form = form

    def encode(self, event: E, form: Format = Format.JSON) -> bytes:
        """The event's bytes."""
        return self.coding(form).encode(event)

    def headers(self, event_id: str, form: Format = Format.JSON, cause: Headers | None = None) -> Headers:
        """The CloudEvents headers of an event, with its cause's ``traceparent``."""
        return [*self.coding(form).static, ("ce_id", event_id.encode()), *carried(cause)]

    def _decoded(self, value: bytes | None, form: Format) -> E:
        try:
            return (self.json if form is Format.JSON else self.msgpack).decode(value)  # type: ignore[arg-type]
        except msgspec.MsgspecError as error:
            raise DecodeError(str(error)[:REASON_CHARACTERS]) from None
        except TypeError:
            raise DecodeError("the record has no value; a tombstone means nothing on this topic") from None
        except (RecursionError, UnicodeDecodeError) as error:
            raise DecodeError(f"the payload cannot be read: {type(error).__name__}: {error}"[:REASON_CHARACTERS]) from None


def carried(cause: Headers | None) -> Headers:
    """What an event takes over of its cause's headers: the first ``traceparent``, unless that is none by its length.

    >>> carried([("a", b"1"), ("traceparent", b"00-1"), ("traceparent", b"00-2")]), carried([("traceparent", b"0" * 257)])
    ([('traceparent', b'00-1')], [])
    """
    for header in cause or ():
        if header[0] == TRACEPARENT:
            return [header] if len(header[1] or b"") <= TRACEPARENT_BYTES else []
    return []


def codec(topic: Topic) -> Codec[Any]:
    """A codec for a topic's events."""
    return Codec(topic, topic.event)


def derived_id(*causes: str) -> str:
    """The id of an event that was derived: a 128-bit hash of what caused it, the same on every machine.

    >>> derived_id("r-1", "experiment") == derived_id("r-1", "experiment") != derived_id("r-1experiment")
    True
    """
    return xxhash.xxh3_128_hexdigest("\x1f".join(causes).encode())


def derived_ids(firsts: Iterable[str], *rest: str) -> list[str]:
    """The ids of many events whose causes differ in the first alone.

    >>> derived_ids(["r-1", "r-2"], "m") == [derived_id("r-1", "m"), derived_id("r-2", "m")]
    True
    """
    tail = "".join(f"\x1f{cause}" for cause in rest)
    return [xxhash.xxh3_128_hexdigest((first + tail).encode()) for first in firsts]


def depth(value: object) -> int:
    """How deep containers are nested in a decoded value; a scalar has depth 0.

    >>> depth(1), depth([]), depth({"a": [1]})
    (0, 1, 2)
    """
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list | tuple):
        return 1 + max(map(depth, value), default=0)
    return 0


def not_finite(values: Iterable[object], names: Sequence[str]) -> str | None:
    """The name of the first value that is a float and not finite, or None.

    >>> not_finite([1.0, float("nan")], ["a", "b"])
    'b'
    """
    return next((name for name, value in zip(names, values, strict=True) if isinstance(value, float) and not math.isfinite(value)), None)
