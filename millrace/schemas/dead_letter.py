"""What could not be used, and the word that lets more of it pass."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from millrace.schemas.event import Event, Name, Time


class DeadLetter(Event, frozen=True):
    """A record that can never be used: its place, the reason, and its original bytes, key and headers, or how those begin."""

    id: Annotated[str, Meta(description="Hash of topic id, partition and offset.")]
    time: Annotated[Time, Meta(description="When it was refused.")]
    worker: Annotated[Name, Meta(description="The role that refused it.")]
    topic: Annotated[Name, Meta(description="The topic it stands on.")]
    topic_id: Annotated[Name, Meta(description="That topic's id.")]
    partition: Annotated[int, Meta(description="Its partition.")]
    offset: Annotated[int, Meta(description="Its offset.")]
    reason: Annotated[str, Meta(description="Why, and where in the payload.")]
    key: Annotated[bytes | None, Meta(description="Its key, base64 in JSON.")] = None
    value: Annotated[bytes | None, Meta(description="Its value, base64 in JSON.")] = None
    headers: Annotated[tuple[tuple[str, bytes], ...], Meta(description="Its headers.")] = ()


class Allowance(Event, frozen=True):
    """An operator lets a held partition group dead-letter on, up to an offset."""

    version: Annotated[int, Meta(ge=1, description="Allowances are counted: 1, 2, 3 ...")]
    time: Annotated[Time, Meta(description="When it was given.")]
    worker: Annotated[Name, Meta(description="The role that is held.")]
    topic: Annotated[Name, Meta(description="The topic that it reads.")]
    partition: Annotated[int, Meta(ge=0, description="The held partition.")]
    through: Annotated[int, Meta(ge=0, description="The last offset that may be dead-lettered without counting towards the cap.")]
