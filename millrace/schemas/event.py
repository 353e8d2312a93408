"""What all events share: identity, time, and the words for annotating a field once for wire, table and document."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta, Raw, Struct

Name = Annotated[str, Meta(extra={"low_cardinality": True})]
Time = Annotated[datetime, Meta(tz=True)]

NOTHING = Raw(b"")
"""The one default of every raw field: an absent one of a cause is left out of its effect too, because it is the same object."""


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact on a topic. New fields have defaults, a type never changes, unknown fields are skipped."""


def from_ms(milliseconds: int) -> datetime:
    """A Kafka timestamp as an aware UTC time.

    >>> from_ms(1_500).isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    return datetime.fromtimestamp(milliseconds / 1_000, UTC)


def to_ms(time: datetime) -> int:
    """An aware time as milliseconds since the epoch.

    >>> to_ms(from_ms(1_500))
    1500
    """
    return round(time.timestamp() * 1_000)
