"""One data-plane transaction: what is needed to run it again."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from millrace.schemas.event import Event, Name, Time


class Range(Struct, frozen=True, kw_only=True):
    """The offsets [start, end) of one partition that a transaction consumed."""

    topic: str
    partition: int
    start: int
    end: int
    topic_id: str = ""
    """The id of the topic these offsets belong to: a topic that was made anew counts from 0 again."""


class Commit(Event, frozen=True):
    """One committed transaction of one slot: input ranges, control versions and ``now``."""

    id: Annotated[str, Meta(description="Hash of slot, input ranges and `time`.")]
    time: Annotated[Time, Meta(description="The `now` that its steps were given.")]
    worker: Annotated[Name, Meta(description="The role.")]
    slot: Annotated[Name, Meta(description="Role and ordinal.")]
    inputs: Annotated[tuple[Range, ...], Meta(description="The offsets consumed.")]
    control: Annotated[dict[str, int], Meta(description="The next offset of each control topic: what was known.")] = {}
    lacking: Annotated[dict[str, str], Meta(description="What of that could not be used yet, and why: `model/version` to the reason.")] = {}
    watermarks: Annotated[dict[int, int], Meta(description="The watermark that timers were given, by partition group, in ms.")] = {}
    records: Annotated[int, Meta(description="How many records it took in.")] = 0
    emitted: Annotated[int, Meta(description="How many events it stated.")] = 0
