"""Looking at the end of a topic, and following it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import Enum
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from millrace.infra.kafka.answers import failed, repeated
from millrace.infra.kafka.clients import TopicInfo, address, describe, full_name, reader
from millrace.infra.kafka.headers import headers_of
from millrace.infra.kafka.last import Extent, last_offsets
from millrace.infra.kafka.scan import Scan
from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable, UsageError
from millrace.schemas.record import Headers, Record

ANSWER_SECONDS = 10.0
SILENCE_SECONDS = 15.0
AT_ONCE = 500


class From(Enum):
    """A place on every partition."""

    EARLIEST = "earliest"
    LATEST = "latest"


class Spot(Struct, frozen=True):
    """Where to begin: at a named place, at an offset, or so many committed records before the end (``last_offsets`` finds those)."""

    place: From = From.EARLIEST
    offset: int | None = None
    before_end: int | None = None

    def on(self, start: int, end: int) -> int:
        """The offset that a place or an offset means on a log of [start, end).

        >>> Spot(offset=4).on(6, 10), Spot(place=From.LATEST).on(0, 10)
        (6, 10)
        """
        if self.offset is not None:
            return min(max(self.offset, start), end)
        return start if self.place is From.EARLIEST else end


class Tail:
    """Reads the committed records of one topic from a spot on; ``close`` it when done."""

    def __init__(self, settings: Settings, topic: str, spot: Spot) -> None:
        self._topic = topic
        self._name = full_name(settings, topic)
        self._consumer = reader(settings)
        info = describe(settings, [self._name]).get(self._name)
        if info is None:
            raise UsageError(f"topic {self._name} does not exist at {address(settings)}: run `millrace provision`")
        extents = _extents(self._consumer, self._name, info)
        self._open = {extent.partition for extent in extents}
        self._consumer.assign([TopicPartition(self._name, number, at) for number, at in self._begin(settings, spot, extents).items()])

    def read(self, seconds: float) -> list[Record]:
        """What is there, waiting up to ``seconds`` for the first of it; raises Unavailable for an error that does not pass by itself."""
        first = self._consumer.poll(seconds)  # ``consume`` would wait its whole time unless all it asked for came
        messages = [] if first is None else [first, *self._consumer.consume(AT_ONCE - 1, 0)]
        pairs = zip(messages, headers_of(messages), strict=True)
        return [record for message, headers in pairs if (record := self._record(message, headers)) is not None]

    @property
    def at_end(self) -> bool:
        """Whether the end of every partition was reached once."""
        return not self._open

    def until_end(self) -> Iterator[Record]:
        """All records to the ends of the partitions, in the order in which they come; raises Unavailable after 15 s of silence."""
        deadline = time.monotonic() + SILENCE_SECONDS
        while not self.at_end:
            records = self.read(0.1)
            if records:
                deadline = time.monotonic() + SILENCE_SECONDS
            elif time.monotonic() > deadline:
                raise Unavailable(f"topic {self._topic}: nothing came for {SILENCE_SECONDS:g} s before its end was reached")
            yield from records

    def for_seconds(self, seconds: float) -> Iterator[Record]:
        """All records that come within a time, and then no more."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            yield from self.read(min(left, 0.05))

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def _begin(self, settings: Settings, spot: Spot, extents: list[Extent]) -> dict[int, int]:
        """The offset of each partition from which to read."""
        if spot.before_end is not None:
            return _before_end(settings, self._name, extents, spot.before_end)
        return {extent.partition: spot.on(extent.start, extent.end) for extent in extents}

    def _record(self, message: Message, headers: Headers | None) -> Record | None:
        error = message.error()
        if error is None:
            return as_record(message, headers, self._topic)
        if error.code() == KafkaError._PARTITION_EOF:
            self._open.discard(message.partition() or 0)
        elif not error.retriable():
            raise Unavailable(f"reading topic {self._topic} failed: {error.str()} ({error.name()})")
        return None


def extents(settings: Settings, topics: dict[str, TopicInfo]) -> dict[str, list[Extent]]:
    """What the partitions of topics hold, by full name."""
    consumer = reader(settings)
    try:
        return {name: _extents(consumer, name, info) for name, info in topics.items()}
    finally:
        consumer.close()


def _before_end(settings: Settings, name: str, extents: list[Extent], records: int) -> dict[int, int]:
    scan = Scan(settings)
    try:
        return last_offsets(scan, name, extents, records)
    finally:
        scan.close()


def _extents(consumer: Consumer, name: str, info: TopicInfo) -> list[Extent]:
    return [repeated(partial(_extent, consumer, name, partition)) for partition in range(info.partitions)]


def _extent(consumer: Consumer, name: str, partition: int) -> Extent:
    try:
        return Extent(partition, *consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=ANSWER_SECONDS, cached=False))
    except KafkaException as error:
        raise failed(error.args[0], f"telling the offsets of {name}/{partition}") from None


def as_record(message: Message, headers: Headers | None, topic: str) -> Record:
    """A message with its headers as our record, under the topic's unprefixed name."""
    _, appended_ms = message.timestamp()
    return Record(
        topic=topic,
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        appended_ms=appended_ms,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=[(name, value or b"") for name, value in headers] if headers else None,
    )


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
