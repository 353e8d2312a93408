"""Committed records of many partitions, each read forward at its own pace, with little of it in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from millrace.infra.kafka.answers import ANSWER_SECONDS
from millrace.infra.kafka.clients import reader
from millrace.infra.kafka.headers import headers_of
from millrace.infra.kafka.inputs import LOST
from millrace.infra.kafka.positions import Place
from millrace.infra.kafka.triage import passing
from millrace.infra.settings import Settings
from millrace.schemas.errors import MillraceError, Unavailable
from millrace.schemas.record import Headers, Record

FETCH_WAIT_MS = 10
AT_ONCE = 5_000
HELD_BYTES = 2 << 20
"""About so much of one partition is held; what the client has fetched beyond is let go of, and fetched again."""
SILENCE_SECONDS = 45.0
"""Longer than a transaction lives that nobody ends, behind which committed records wait."""


class Gone(MillraceError):
    """The log does not hold these records any more."""


class Cursors:
    """Reads partitions without a group, one at a time; ``names`` are the topics' own names by their full names."""

    def __init__(self, settings: Settings, names: dict[str, str]) -> None:
        self._consumer: Consumer = reader(settings, fetch_wait_ms=FETCH_WAIT_MS)
        self._all: Consumer = reader(settings, committed=False)
        """Asked where logs end: one that reads what is committed is told where that ends."""
        self._names = names
        self._cursors: dict[Place, Cursor] = {}
        self._known: set[str] = set()

    def read(self, place: Place, start: int, end: int) -> Iterator[Record]:
        """The records in [start, end), which is cheap where the last call for the place ended at or before ``start``.

        Raises Gone where the log no longer holds them, Unavailable where Kafka is silent.
        """
        cursor = self._cursors.setdefault(place, Cursor())
        cursor.go_to(start)
        while True:
            yield from cursor.below(end)
            if cursor.at >= end:
                return
            self._fetch(place, cursor, end)

    def at_times(self, times_ms: dict[Place, int]) -> dict[Place, int]:
        """The first offset of each place whose record was appended at that time or later; the log's end where none was."""
        wanted = [TopicPartition(*place, time_ms) for place, time_ms in times_ms.items()]
        try:
            answers = self._consumer.offsets_for_times(wanted, ANSWER_SECONDS) if wanted else []
        except KafkaException as error:
            raise Unavailable(f"Kafka did not tell where a time stands on a log: {error.args[0].str()}") from None
        return {(answer.topic, answer.partition): answer.offset if answer.offset >= 0 else self._end(answer) for answer in answers}

    def extent(self, place: Place) -> tuple[int, int]:
        """Where the log starts and ends, what is pending included."""
        try:
            low, high = self._all.get_watermark_offsets(TopicPartition(*place), ANSWER_SECONDS, cached=False)
        except KafkaException as error:
            raise Unavailable(f"Kafka did not tell the ends of {place[0]}/{place[1]}: {error.args[0].str()}") from None
        return int(low), int(high)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
        self._all.close()

    def _end(self, answer: TopicPartition) -> int:
        return self.extent((answer.topic, answer.partition))[1]

    def _fetch(self, place: Place, cursor: Cursor, end: int) -> None:
        """Take in some more of one place: at least one record, or its end where that is far enough."""
        self._look_up(place[0])
        self._consumer.incremental_assign([TopicPartition(*place, cursor.fetched)])
        deadline = time.monotonic() + SILENCE_SECONDS
        try:
            while cursor.wants(end):
                if time.monotonic() > deadline:
                    raise Unavailable(f"{place[0]}/{place[1]}: nothing came for {SILENCE_SECONDS:g} s before offset {end} was reached")
                self._take(self._some(), place, cursor)
        finally:
            self._consumer.incremental_unassign([TopicPartition(*place)])

    def _some(self) -> list[Message]:
        """What is there; ``consume`` with a time would wait it out unless all it asked for came."""
        first = self._consumer.consume(1, 0.1)
        return [*first, *self._consumer.consume(AT_ONCE, 0)] if first else []

    def _take(self, messages: list[Message], place: Place, cursor: Cursor) -> None:
        for message, headers in zip(messages, headers_of(messages), strict=True):
            if (message.topic(), message.partition()) != place:
                continue
            error, offset = message.error(), message.offset() or 0
            if error is None:
                if cursor.fetched <= offset and not cursor.full:
                    cursor.push(self._record(message, headers))
            elif error.code() == KafkaError._PARTITION_EOF:
                cursor.reach(offset)
            elif error.code() in LOST:
                raise Gone(f"{place[0]}/{place[1]} does not hold offset {cursor.fetched} any more")
            elif not passing(error):
                raise Unavailable(f"reading {place[0]}/{place[1]}: {error.name()}: {error.str()}")

    def _record(self, message: Message, headers: Headers | None) -> Record:
        name, partition, offset = self._names[str(message.topic())], message.partition() or 0, message.offset() or 0
        return Record(name, partition, offset, message.timestamp()[1], message.key(), message.value(), headers)

    def _look_up(self, topic: str) -> None:
        """Ask for a topic's leaders once: of those that it does not know yet, the client would ask up to a second later."""
        if topic in self._known:
            return
        try:
            self._consumer.list_topics(topic, ANSWER_SECONDS)
        except KafkaException as error:
            raise Unavailable(f"Kafka did not describe topic {topic}: {error.args[0].str()}") from None
        self._known.add(topic)


class Cursor:
    """What was fetched of one partition and not yet given out: all of it below ``fetched``."""

    def __init__(self) -> None:
        self.fetched = 0
        self.bytes = 0
        self._given = 0
        self._held: deque[Record] = deque()

    @property
    def at(self) -> int:
        """Where the next record to give out stands, or where one may."""
        return self._held[0].offset if self._held else self.fetched

    def go_to(self, offset: int) -> None:
        """Stand at an offset: what is held before it is dropped, and all of it where it lies elsewhere."""
        if not self._given <= offset <= self.fetched:
            self._held.clear()
            self.fetched, self.bytes = offset, 0
        while self._held and self._held[0].offset < offset:
            self._pop()
        self._given = offset

    def below(self, end: int) -> Iterator[Record]:
        """Give out what is held below an offset."""
        while self._held and self._held[0].offset < end:
            yield self._pop()

    @property
    def full(self) -> bool:
        """Whether it holds enough for now."""
        return self.bytes >= HELD_BYTES

    def reach(self, end: int) -> None:
        """There is nothing more below this end; a full one has skipped records before it."""
        if not self.full:
            self.fetched = max(self.fetched, end)

    def push(self, record: Record) -> None:
        """Take in the next record."""
        self._held.append(record)
        self.fetched = record.offset + 1
        self.bytes += len(record.value or b"")

    def wants(self, end: int) -> bool:
        """Whether there is nothing yet to go on with."""
        return not self._held and self.fetched < end

    def _pop(self) -> Record:
        record = self._held.popleft()
        self.bytes -= len(record.value or b"")
        self._given = record.offset + 1
        return record
