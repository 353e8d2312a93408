"""Where the last few committed records of each partition begin.

Offsets do not count records: transaction markers, aborted records and compaction leave offsets that no committed reader is given. So
it steps back, further each time, and counts what comes, until there is enough of it or the bound is reached.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError, TopicPartition
from msgspec import Struct

from millrace.schemas.errors import Unavailable

REACH_OFFSETS = 100_000
"""It steps back no further than this from a partition's end, nor than four offsets for each record that is wanted."""
FIRST_STEP_OFFSETS = 16
WIDER = 8
SILENCE_SECONDS = 15.0
AT_ONCE = 500


class Extent(Struct, frozen=True):
    """What a partition holds: offsets [start, end)."""

    partition: int
    start: int
    end: int


def last_offsets(consumer: Consumer, topic: str, extents: Iterable[Extent], records: int) -> dict[int, int]:
    """By partition, the offset of the first of its last so many records; its end where a committed reader is given none of them.

    The consumer is left assigned to what was looked at last. Raises Unavailable where Kafka is silent for 15 s.
    """
    found: dict[int, int] = {}
    todo = {extent.partition: extent for extent in extents}
    step, reach = 2 * records + FIRST_STEP_OFFSETS, max(REACH_OFFSETS, 4 * records)
    while todo:
        step = min(step, reach)
        starts = {number: max(extent.start, extent.end - step) for number, extent in todo.items()}
        seen = _seen(consumer, topic, {number: (start, todo[number].end) for number, start in starts.items()}, records)
        for number, offsets in seen.items():
            if len(offsets) == records or starts[number] == todo[number].start or step == reach:
                found[number] = offsets[0] if offsets else todo[number].end
                del todo[number]
        step *= WIDER
    return found


def _seen(consumer: Consumer, topic: str, spans: dict[int, tuple[int, int]], records: int) -> dict[int, deque[int]]:
    """The last so many offsets that are given in [start, end) of each partition."""
    seen: dict[int, deque[int]] = {number: deque(maxlen=records) for number in spans}
    ends = {number: end for number, (start, end) in spans.items() if start < end}
    consumer.assign([TopicPartition(topic, number, spans[number][0]) for number in ends])
    deadline = time.monotonic() + SILENCE_SECONDS
    while ends:
        first = consumer.consume(1, 0.1)
        for message in [*first, *consumer.consume(AT_ONCE, 0)] if first else ():
            deadline = time.monotonic() + SILENCE_SECONDS
            number, offset, error = message.partition() or 0, message.offset() or 0, message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                if not error.retriable():
                    raise Unavailable(f"reading topic {topic} failed: {error.str()} ({error.name()})")
                continue
            if number not in ends:
                continue
            if error is None and offset < ends[number]:
                seen[number].append(offset)
            if offset >= ends[number] - (error is None):
                del ends[number]
        if time.monotonic() > deadline:
            raise Unavailable(f"topic {topic}: nothing came for {SILENCE_SECONDS:g} s before its end was reached")
    return seen
