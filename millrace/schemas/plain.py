"""Records as plain values, for people and scripts: whatever the format on the wire, one way to look at it."""

from __future__ import annotations

import array
import json
import sys
from typing import Any

import msgspec

from millrace.schemas.errors import DecodeError
from millrace.schemas.event import from_ms
from millrace.schemas.record import Format, Headers, Record
from millrace.schemas.topics import BY_NAME
from millrace.schemas.wire import codec, format_of

VECTOR = "vector"


def document(record: Record) -> dict[str, Any]:
    """A record as one JSON-able object: place, time, key, headers, value; what cannot be decoded stands in ``raw`` beside ``error``."""
    found: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "appended": from_ms(record.appended_ms),
        "key": text(record.key),
        "headers": {name: text(value) for name, value in record.headers or ()},
    }
    try:
        found["value"] = plain(record.value, record.headers)
        _check(record)
    except DecodeError as error:
        found["error"] = str(error)
        if "value" not in found:
            found["raw"] = text(record.value)
    return found


def plain(value: bytes | None, headers: Headers | None) -> Any:
    """A value as plain values: a binary vector is shown as its numbers. Raises DecodeError."""
    if value is None:
        return None
    try:
        if format_of(headers) is Format.JSON:
            return json.loads(value)
        return _shown(msgspec.msgpack.decode(value))
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"the value is not {format_of(headers).value}: {error}") from None


def to_msgpack(value: Any) -> bytes:
    """Plain values as MessagePack, with ``vector`` as float32 in binary."""
    if isinstance(value, dict) and isinstance(value.get(VECTOR), list):
        try:
            value = value | {VECTOR: floats_to_bytes(value[VECTOR])}
        except (TypeError, OverflowError):
            raise DecodeError("vector: expected numbers - at `$.vector`") from None
    return msgspec.msgpack.encode(value)


def floats_to_bytes(values: list[float]) -> bytes:
    """Numbers as little-endian float32.

    >>> floats_to_bytes([1.0]).hex()
    '0000803f'
    """
    return _little_endian(array.array("f", values)).tobytes()


def floats_from_bytes(data: bytes) -> list[float]:
    """Little-endian float32 as numbers; raises DecodeError where they do not come out even."""
    if len(data) % 4:
        raise DecodeError(f"a binary vector of {len(data)} bytes is not a whole number of float32 - at `$.vector`")
    return _little_endian(array.array("f", data)).tolist()


def text(value: bytes | None) -> str | None:
    """Bytes as text; what is not UTF-8 is shown in hex.

    >>> text(b"caf\\xc3\\xa9"), text(b"\\xff\\x00"), text(None)
    ('café', '0xff00', None)
    """
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"0x{value.hex()}"


def _shown(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get(VECTOR), bytes):
        return value | {VECTOR: floats_from_bytes(value[VECTOR])}
    return value


def _check(record: Record) -> None:
    """What a reader of the topic would say of the record; a changelog has no codec."""
    topic = BY_NAME.get(record.topic)
    if topic is not None:
        codec(topic).decode(record.value, record.headers)


def _little_endian(values: array.array[float]) -> array.array[float]:
    if sys.byteorder == "big":
        values.byteswap()
    return values
