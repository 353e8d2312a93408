"""The offsets that a committed reader sees on one partition, in chunks of bounded size."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from confluent_kafka import Consumer, IsolationLevel, KafkaError, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from millrace.infra.kafka.answers import ANSWER_SECONDS, repeated, result
from millrace.infra.kafka.clients import admin, reader
from millrace.infra.kafka.inputs import LOST
from millrace.infra.kafka.positions import Place
from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable

Offsets = np.ndarray[Any, np.dtype[np.int64]]
SILENCE_SECONDS = 15.0


class Dropped(Exception):
    """The log dropped the records that were to be read next."""


class Scan:
    """Reads the offsets of partitions, one after another, without a group."""

    def __init__(self, settings: Settings) -> None:
        self._consumer: Consumer = reader(settings)
        self._admin = admin(settings)

    def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        """The first offset that each log still holds."""
        earliest: Any = OffsetSpec.earliest
        return self._positions(places, earliest())

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The offset after the last that a committed reader may see now."""
        latest: Any = OffsetSpec.latest
        return self._positions(places, latest())

    def offsets(self, place: Place, start: int, end: int, chunk: int) -> Iterator[tuple[int, int, Offsets]]:
        """The offsets of records in [start, end), as (from, to, offsets) of consecutive ranges. Raises Dropped."""
        if start >= end:
            return
        begin = start
        self._consumer.assign([TopicPartition(*place, start)])
        gathered: list[int] = []
        for offset in self._read(place, end):
            gathered.append(offset)
            if len(gathered) >= chunk:
                yield begin, offset + 1, np.array(gathered, np.int64)
                begin, gathered = offset + 1, []
        if begin < end:
            yield begin, end, np.array(gathered, np.int64)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def _read(self, place: Place, end: int) -> Iterator[int]:
        deadline = time.monotonic() + SILENCE_SECONDS
        while True:
            for message in self._some():
                deadline = time.monotonic() + SILENCE_SECONDS
                offset, error = int(message.offset() or 0), message.error()
                if error is not None and error.code() in LOST:
                    raise Dropped
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    continue
                if offset >= end:
                    return
                if error is None:
                    yield offset
                    if offset == end - 1:
                        return
            if time.monotonic() > deadline:
                raise Unavailable(f"{place[0]}/{place[1]}: nothing came for {SILENCE_SECONDS:g} s before offset {end} was reached")

    def _some(self) -> list[Message]:
        """What is there; ``consume`` with a time would wait it out unless all it asked for came."""
        first = self._consumer.consume(1, 0.1)
        return [*first, *self._consumer.consume(10_000, 0)] if first else []

    def _positions(self, places: Iterable[Place], spec: Any) -> dict[Place, int]:
        asked = {TopicPartition(*place): spec for place in places}
        return repeated(lambda: self._positions_once(asked)) if asked else {}

    def _positions_once(self, asked: dict[TopicPartition, Any]) -> dict[Place, int]:
        futures = self._admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_SECONDS)
        answers = {part: result(future, f"finding an offset of {part.topic}") for part, future in futures.items()}
        return {(part.topic, part.partition): int(answer.offset) for part, answer in answers.items()}
