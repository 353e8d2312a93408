"""The offsets that a committed reader sees, of many partitions at a time, in chunks of bounded size."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]
from msgspec import Struct

from millrace.infra.kafka.answers import ANSWER_SECONDS, repeated, result
from millrace.infra.kafka.clients import admin, reader
from millrace.infra.kafka.inputs import LOST
from millrace.infra.kafka.positions import Place
from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable

Offsets = np.ndarray[Any, np.dtype[np.int64]]
SILENCE_SECONDS = 15.0
AT_ONCE = 10_000
FETCH_WAIT_MS = 10
"""A fetch that finds nothing more tells that a log is at its end."""


class Chunk(Struct, frozen=True):
    """The offsets of the records in [low, high) of one partition, in order."""

    place: Place
    low: int
    high: int
    offsets: Offsets


class Dropped(Struct, frozen=True):
    """The log of this partition dropped the records that were to be read next: nothing more of it comes."""

    place: Place


class Reading:
    """What was read of one partition and not yet handed on. ``end`` is known beforehand; a log may go on behind it."""

    def __init__(self, place: Place, start: int, end: int) -> None:
        self.place = place
        self.end = end
        self._low = start
        self._offsets = array("q")

    def take(self, offset: int) -> None:
        """Take in the next record's offset, below the end."""
        self._offsets.append(offset)

    def __len__(self) -> int:
        return len(self._offsets)

    def chunk(self, high: int) -> Chunk:
        """What there is, as all that stands below ``high``."""
        made = Chunk(self.place, self._low, high, np.array(self._offsets, np.int64))
        self._low, self._offsets = high, array("q")
        return made

    def rest(self) -> Iterator[Chunk]:
        """The last chunk, which reaches to the end; none where the chunk before did."""
        if self._low < self.end:
            yield self.chunk(self.end)


class Scan:
    """Reads the offsets of partitions without a group."""

    def __init__(self, settings: Settings) -> None:
        self._consumer: Consumer = reader(settings, fetch_wait_ms=FETCH_WAIT_MS)
        self._admin = admin(settings)

    def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        """The first offset that each log still holds."""
        earliest: Any = OffsetSpec.earliest
        return self._positions(places, earliest())

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The offset after the last that a committed reader may see now."""
        latest: Any = OffsetSpec.latest
        return self._positions(places, latest())

    def offsets(self, spans: Mapping[Place, tuple[int, int]], chunk: int) -> Iterator[Chunk | Dropped]:
        """The offsets in [start, end) of each place, all read at the same time, as consecutive chunks of each.

        A log that is at its end says so only after a wait: with all of them assigned at once it is waited for once, not for each.
        Raises Unavailable where nothing comes for 15 s.
        """
        open_now = {place: Reading(place, start, end) for place, (start, end) in spans.items() if start < end}
        self._look_up({topic for topic, _ in open_now})
        self._consumer.assign([TopicPartition(*place, spans[place][0]) for place in open_now])
        deadline = time.monotonic() + SILENCE_SECONDS
        while open_now:
            messages = self._some()
            if messages:
                deadline = time.monotonic() + SILENCE_SECONDS
            elif time.monotonic() > deadline:
                waiting = ", ".join(f"{topic}/{partition}" for topic, partition in sorted(open_now)[:5])
                raise Unavailable(f"nothing came for {SILENCE_SECONDS:g} s before the ends of {waiting} were reached")
            for message in messages:
                yield from self._taken(message, open_now, chunk)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def _look_up(self, topics: Iterable[str]) -> None:
        """Ask for the leaders of topics: of those that it does not know yet, the client would ask up to a second later."""
        for topic in topics:
            try:
                self._consumer.list_topics(topic, ANSWER_SECONDS)
            except KafkaException as error:
                raise Unavailable(f"Kafka did not describe topic {topic}: {error.args[0].str()}") from None

    def _taken(self, message: Message, open_now: dict[Place, Reading], chunk: int) -> Iterator[Chunk | Dropped]:
        """Take in a message; what is complete because of it."""
        reading = open_now.get((message.topic() or "", message.partition() or 0))
        if reading is None:
            return
        offset, error = int(message.offset() or 0), message.error()
        if error is not None and error.code() in LOST:
            self._leave(reading, open_now)
            yield Dropped(reading.place)
            return
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            return
        if error is None and offset < reading.end:
            reading.take(offset)
        if offset >= reading.end - (error is None):
            self._leave(reading, open_now)
            yield from reading.rest()
        elif len(reading) >= chunk:
            yield reading.chunk(offset + 1)

    def _leave(self, reading: Reading, open_now: dict[Place, Reading]) -> None:
        """Read no more of a partition: on a live stack it goes on, and would be fetched for nothing."""
        del open_now[reading.place]
        self._consumer.incremental_unassign([TopicPartition(*reading.place)])

    def _some(self) -> list[Message]:
        """What is there; ``consume`` with a time would wait it out unless all it asked for came."""
        first = self._consumer.consume(1, 0.1)
        return [*first, *self._consumer.consume(AT_ONCE, 0)] if first else []

    def _positions(self, places: Iterable[Place], spec: Any) -> dict[Place, int]:
        asked = {TopicPartition(*place): spec for place in places}
        return repeated(lambda: self._positions_once(asked)) if asked else {}

    def _positions_once(self, asked: dict[TopicPartition, Any]) -> dict[Place, int]:
        futures = self._admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_SECONDS)
        answers = {part: result(future, f"finding an offset of {part.topic}") for part, future in futures.items()}
        return {(part.topic, part.partition): int(answer.offset) for part, answer in answers.items()}
