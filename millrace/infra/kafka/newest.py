"""The newest record of a key, found from the end of its partition: a compacted topic keeps days of older ones before it."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from millrace.infra.kafka.clients import address, describe, full_name, reader
from millrace.infra.kafka.headers import headers_of
from millrace.infra.kafka.partition import partition_of
from millrace.infra.kafka.positions import Place
from millrace.infra.kafka.tail import as_record, extents
from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable, UsageError
from millrace.schemas.record import Record
from millrace.schemas.topics import Topic

FIRST_STEP_OFFSETS = 64
WIDER = 8
AT_ONCE = 500
SILENCE_SECONDS = 15.0


def newest(settings: Settings, topic: Topic, key: str) -> Record | None:
    """The newest committed record of a key that its partition is computed from; None where there is none.

    Raises UsageError for a topic that does not exist, Unavailable when Kafka is silent for 15 s.
    """
    name = full_name(settings, topic)
    info = describe(settings, [name]).get(name)
    if info is None:
        raise UsageError(f"topic {name} does not exist at {address(settings)}: run `millrace provision`")
    place = (name, partition_of(key, info.partitions))
    extent = extents(settings, {name: info})[name][place[1]]
    consumer = reader(settings)
    high, step = extent.end, FIRST_STEP_OFFSETS
    try:
        while high > extent.start:
            low = max(extent.start, high - step)
            found = _last(consumer, place, (low, high), key.encode())
            if found is not None:
                return as_record(found, headers_of([found])[0], topic.name)
            high, step = low, step * WIDER
    finally:
        consumer.close()
    return None


def _last(consumer: Consumer, place: Place, span: tuple[int, int], key: bytes) -> Message | None:
    """The last message of a key in [low, high) of a partition."""
    low, high = span
    consumer.assign([TopicPartition(*place, low)])
    found, deadline = None, time.monotonic() + SILENCE_SECONDS
    while True:
        first = consumer.poll(0.1)
        messages = [] if first is None else [first, *consumer.consume(AT_ONCE, 0)]
        for message in messages:
            if message.error() is None and int(message.offset() or 0) < high:
                found = message if message.key() == key else found
            elif message.error() is None or _ended(message):
                return found
        if messages:
            deadline = time.monotonic() + SILENCE_SECONDS
        elif time.monotonic() > deadline:
            raise Unavailable(f"{place[0]}/{place[1]}: nothing came for {SILENCE_SECONDS:g} s before offset {high} was reached")


def _ended(message: Message) -> bool:
    """Whether it says that the log ends here; raises Unavailable for an error that does not pass by itself."""
    error = message.error()
    if error is None or error.code() == KafkaError._PARTITION_EOF:
        return error is not None
    if not error.retriable():
        raise Unavailable(f"reading {message.topic()}/{message.partition()} failed: {error.str()} ({error.name()})")
    return False
