"""A record as it stands on a topic partition, and a fact on its way to one."""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct

Headers = list[tuple[str, bytes]]


class Format(Enum):
    """How a value is encoded, by its content type."""

    JSON = "application/json"
    MSGPACK = "application/msgpack"


class Record(Struct, gc=False):
    """One Kafka record. ``appended_ms`` is the broker's append time; ``event`` and ``form`` are set when the value is decoded."""

    topic: str
    partition: int
    offset: int
    appended_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None
    event: Any = None
    form: Format = Format.JSON

    @property
    def spot(self) -> tuple[str, int, int]:
        """Topic, partition and offset: what tells this record from every other."""
        return (self.topic, self.partition, self.offset)

    @property
    def place(self) -> str:
        """Where the record stands, e.g. ``requests/3@120``."""
        return f"{self.topic}/{self.partition}@{self.offset}"


class Emit(Struct, gc=False):
    """A fact that a step states: the runner encodes it in the format of its cause and produces it.

    ``key`` is the record's key and, unless ``partition_by`` names another text, what its partition is computed from.
    """

    topic: str
    key: str
    event: Any
    cause: Record | None = None
    partition_by: str | None = None


class Refused(Struct, gc=False):
    """A step's word that this record can never be used: it goes to ``dead-letters`` with the reason."""

    record: Record
    reason: str
