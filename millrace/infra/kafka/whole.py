"""Reading a topic from its start to its end, as it is committed now."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.infra.kafka.tail import Spot, Tail
from millrace.infra.settings import Settings
from millrace.schemas.record import Record
from millrace.schemas.topics import Topic


def read_whole(settings: Settings, topic: Topic | str, start: int = 0) -> Iterator[Record]:
    """Every committed record of a topic, its partitions mixed, from ``start`` to the end that stands when it is reached.

    Raises UsageError for a topic that does not exist, Unavailable when Kafka is silent for 15 s.
    """
    tail = Tail(settings, topic if isinstance(topic, str) else topic.name, Spot(offset=start))
    try:
        yield from tail.until_end()
    finally:
        tail.close()
