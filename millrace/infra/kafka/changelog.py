"""A partition group's state, read back from its changelog."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from millrace.infra.kafka.clients import reader
from millrace.infra.kafka.provision import TOMBSTONE_DAYS
from millrace.infra.kafka.triage import passing
from millrace.infra.settings import Settings
from millrace.infra.state import GroupStore, Mark, Writes
from millrace.schemas.errors import Stop, Unavailable

CHUNK_RECORDS = 20_000
TRUSTED_SECONDS = TOMBSTONE_DAYS * 86_400 / 2
ANSWER_SECONDS = 15.0
ASK_AGAIN_SECONDS = 0.2


class Restore:
    """Brings one store up to the end of its changelog, a chunk at a time, so that the group's polls go on meanwhile.

    Make it only after the group's committed offsets were fetched: that waits until pending transactions are decided. The end is
    then taken with what is pending or aborted included, and committed records are read until past it; the committed end alone
    could lie before a transaction that was decided while we looked.
    """

    def __init__(self, settings: Settings, topic: str, topic_id: str, group: int, store: GroupStore) -> None:
        self._topic_id = topic_id
        self._store = store
        self._place = (topic, group)
        self._began = time.monotonic()
        self._reader = reader(settings)
        low, self._end = self._bounds(reader(settings, committed=False))
        self._next = max(low, self._trusted_offset())
        self.records = 0
        self.wiped = False
        self._start(low)

    @property
    def done(self) -> bool:
        """Whether the store holds everything below the changelog's end."""
        return self._next >= self._end

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._began

    def advance(self, seconds: float) -> bool:
        """Apply one chunk; True once the store is complete."""
        if not self.done:
            self._apply(self._reader.consume(CHUNK_RECORDS, seconds))
        if self.done:
            self._reader.close()
        return self.done

    def close(self) -> None:
        """Give up; what was applied so far stays, with how far it reaches."""
        self._reader.close()

    def _bounds(self, everything: Consumer) -> tuple[int, int]:
        try:
            return bounds(everything, self._place)
        finally:
            everything.close()

    def _trusted_offset(self) -> int:
        """Where a local store may go on from; 0 where it cannot be trusted: another topic id, or so old that tombstones may be gone."""
        mark = self._store.mark
        old = mark is not None and time.time() - mark.written > TRUSTED_SECONDS
        return mark.offset if mark is not None and mark.topic_id == self._topic_id and mark.offset <= self._end and not old else 0

    def _start(self, low: int) -> None:
        mark = self._store.mark
        if mark is not None and (mark.topic_id != self._topic_id or self._next != mark.offset):
            self._store.wipe()
            self.wiped = True
            self._next = low
        self._reader.assign([TopicPartition(*self._place, self._next)])

    def _apply(self, messages: list[Message]) -> None:
        writes: Writes = {}
        for message in messages:
            self._take(message, writes)
        self._store.apply(writes, Mark(self._topic_id, self._next, time.time()))

    def _take(self, message: Message, writes: Writes) -> None:
        error, offset = message.error(), message.offset() or 0
        if error is None:
            writes[message.key() or b""] = message.value()
            self._next = offset + 1
            self.records += 1
        elif error.code() == KafkaError._PARTITION_EOF:
            self._next = max(self._next, offset)
        elif not passing(error):
            raise Stop(f"reading changelog {self._place[0]}/{self._place[1]}: {error.name()}: {error.str()}")


def bounds(consumer: Consumer, place: tuple[str, int]) -> tuple[int, int]:
    """The start and the end of a partition. Raises Unavailable after 15 s: a leader that moves, as of a topic just made, is asked again."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        left = deadline - time.monotonic()
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(*place), timeout=max(ASK_AGAIN_SECONDS, left), cached=False)
        except KafkaException as error:
            if left <= ASK_AGAIN_SECONDS or not passing(error.args[0]):
                raise Unavailable(f"Kafka did not tell the ends of changelog {place[0]}: {error.args[0].str()}") from None
            time.sleep(ASK_AGAIN_SECONDS)
        else:
            return int(low), int(high)
