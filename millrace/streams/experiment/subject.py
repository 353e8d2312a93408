"""What is kept of a unit, and of a request where requests are analysed; and how it is stored.

Integers outgrow the 64 bits of MessagePack: those that do are an extension with their decimal text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
import xxhash
from msgspec import Struct

from millrace.schemas.errors import Stop

T = TypeVar("T")
VERSION = b"\x01"
"""Stands before each stored value."""
WIDE = 1
"""MessagePack's extension code of an integer beyond 64 bits."""
UNIT, REQUEST = b"u", b"r"
SLICES = 1 << 16
"""How many slices of keys a sweep goes through, by a hash of the subject."""

Entry = tuple[int, int, int, str, float, str | None, bool, int | None]
"""A recent outcome: append time in ms, time in microseconds, offset, name, value, request, whether it is a duplicate, and how far behind
the newest before it it is, in microseconds; None where there is none before it."""


class Exposure(Struct, array_like=True, gc=False):
    """One experiment's view of one subject."""

    experiment: str
    overridden: bool = False
    """Its first assignment was named by hand: nothing of it counts."""
    variant: str | None = None
    """What it was first exposed to; None while it was only assigned."""
    multiple: bool = False
    time_us: int = 0
    appended_ms: int = 0
    segments: list[str] = []
    """``field=value``."""
    unit: str = ""
    """Of a request: the unit whose outcomes count."""
    values: list[Any] = []
    """The states of the definition's slots."""
    steps: list[int] | None = None
    """Of a request that a contextual policy can learn from: its features, scaled, in steps."""


class Subject(Struct, array_like=True, gc=False):
    """What is kept of a request: its exposures."""

    exposures: list[Exposure] = []


class UnitState(Struct, array_like=True, gc=False):
    """What is kept of a unit."""

    exposures: list[Exposure] = []
    recent: list[bytes] = []
    """Outcomes of the last minutes, each an ``Entry`` in MessagePack, which only an exposure reads."""
    since_ms: int = 0
    """The append time of the first of them."""
    chunks: list[list[int]] = []
    """Where more of them are: the number of each chunk, and its newest append time in ms."""
    generation: int = 0
    """The generation of ``ids``, which are 16 bytes for each outcome; ``older`` are those of the one before."""
    ids: bytes = b""
    older: bytes = b""
    spilled: int = -1
    """The newest generation of which ids stand in the store by themselves."""
    days: dict[str, dict[int, list[Any]]] = {}
    """Day sums by what is wanted and day."""


class Coding(Generic[T]):
    """Encodes and decodes one kind of stored value. Raises Stop for a version that is not known."""

    def __init__(self, kind: Any) -> None:
        self._decode: Callable[[memoryview], T] = msgspec.msgpack.Decoder(kind, ext_hook=_narrow).decode

    def encode(self, value: T) -> bytes:
        """The bytes of a value."""
        try:
            return VERSION + _encode(value)
        except OverflowError:
            return VERSION + _encode(_wide(msgspec.to_builtins(value, builtin_types=(bytes,))))

    def decode(self, stored: bytes) -> T:
        """The value of some bytes."""
        if stored[:1] != VERSION:
            raise Stop(
                f"the state was written by another version of millrace (it begins with {stored[:1]!r}): stop the role, and start the "
                "version that wrote it"
            )
        return self._decode(memoryview(stored)[1:])


_encode = msgspec.msgpack.Encoder().encode


def key(kind: bytes, name: str) -> bytes:
    """Where a subject is stored: behind two bytes of hash, so that a part of the keys is a part of the subjects."""
    text = name.encode()
    return kind + xxhash.xxh32_digest(text)[:2] + text


def digest_of(*parts: str) -> bytes:
    """16 bytes that stand for these texts."""
    return xxhash.xxh3_128_digest("\x1f".join(parts).encode())


def _wide(value: Any) -> Any:
    """The same, with integers beyond 64 bits as extensions."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return msgspec.msgpack.Ext(WIDE, str(value).encode())
    if isinstance(value, list | tuple):
        return [_wide(item) for item in value]
    return {name: _wide(item) for name, item in value.items()} if isinstance(value, dict) else value


def _narrow(code: int, data: memoryview) -> int:
    if code != WIDE:
        raise Stop(f"the state has a value of kind {code}, which this version of millrace does not know")
    return int(bytes(data))


UNITS: Coding[UnitState] = Coding(UnitState)
SUBJECTS: Coding[Subject] = Coding(Subject)
