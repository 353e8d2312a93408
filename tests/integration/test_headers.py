"""Clients in other languages name headers with raw bytes: no reader may end of a name that is not UTF-8."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Message, TopicPartition

from millrace.infra.clickhouse.client import Client
from millrace.infra.kafka.clients import full_name, reader
from millrace.infra.kafka.headers import headers_of
from millrace.infra.kafka.whole import read_whole
from millrace.infra.telemetry import ControlIgnored
from millrace.schemas.topics import EXPERIMENTS, REQUESTS
from millrace.schemas.wire import UNREADABLE_HEADERS
from tests.integration.archive import archive_rig, archiver, settle
from tests.integration.harness import ECHO, InThread, Publisher, Rig, check, gather, settled
from tests.integration.harness.bare import BareProducer
from tests.integration.harness.publish import CODECS, request
from tests.integration.harness.readback import letters, outputs
from tests.stack import Broker, ClickHouse

NAMES = (b"\xff", b"\xc3\x28", b"ok\xed\xa0\x80", b"\xf8\x88\x80\x80\x80")
"""No UTF-8: a byte that never stands there, a character that breaks off, half of a surrogate pair, and five bytes for one."""
GOOD = [(b"content-type", b"application/json"), (b"n\xc3\xa4me", b"\xff")]
WORDS = "the name of a header is not UTF-8"


@contextmanager
def bare(rig: Rig) -> Iterator[BareProducer]:
    producer = BareProducer(rig.settings.kafka.address)
    try:
        yield producer
    finally:
        producer.close()


def among_neighbours(rig: Rig, producer: BareProducer) -> None:
    """Requests of which every other one has a header of such a name, with others before and behind it."""
    name = full_name(rig.settings, REQUESTS)
    for number in range(4 * len(NAMES)):
        bad = [*GOOD, (NAMES[number // 2 % len(NAMES)], b"1"), (b"traceparent", b"t")]
        value = CODECS[REQUESTS.name].encode(request(number, "u1"))
        producer.send(name, value, b"u1", 0, bad if number % 2 else GOOD)


def test_a_record_whose_headers_cannot_be_read_is_dead_lettered_and_its_neighbours_are_decided(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO, partitions=1).provision()
    with Publisher(rig) as publisher, bare(rig) as producer:
        among_neighbours(rig, producer)
        with InThread(rig):
            settled(rig)
        assert check(gather(rig, publisher)) == []
    found = letters(rig.settings)
    assert [letter.offset for letter in found] == list(range(1, 4 * len(NAMES), 2))
    assert all(letter.reason.startswith(WORDS) for letter in found)
    assert found[0].value == CODECS[REQUESTS.name].encode(request(1, "u1"))
    assert len(outputs(rig)) == 2 * len(NAMES)


def test_such_a_record_is_one_row_with_its_bytes_and_the_reason(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    rig = archive_rig(broker, clickhouse, tmp_path)
    with bare(rig) as producer:
        among_neighbours(rig, producer)
    with archiver(rig) as worker:
        settle(rig)
        assert worker.alive
    client = Client(rig.settings.clickhouse)
    rows = client.rows(f"SELECT _offset, _error, _raw FROM {client.database}.requests ORDER BY _offset")
    assert len(rows) == 4 * len(NAMES)
    for offset, error, raw in rows:
        assert bool(error) == bool(int(offset) % 2)
        assert str(error).startswith(WORDS) == bool(error)
        assert bool(raw) == bool(error)


def test_a_control_record_and_a_reader_of_a_whole_topic_go_on_past_such_a_name(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO, partitions=1).provision()
    with Publisher(rig) as publisher, bare(rig) as producer:
        producer.send(full_name(rig.settings, EXPERIMENTS), b"{}", b"e", 0, [(NAMES[0], b"1")])
        among_neighbours(rig, producer)
        producer.send(full_name(rig.settings, EXPERIMENTS), b"{}", b"e", 0, [(NAMES[0], b"1")])
        with InThread(rig) as worker:
            worker.wait_for(ControlIgnored, 2)
            publisher.burst(5)
            settled(rig)
    records = list(read_whole(rig.settings, REQUESTS))
    assert [record.headers == UNREADABLE_HEADERS for record in records] == [False, True] * 2 * len(NAMES) + [False] * 5
    assert records[0].headers == [("content-type", b"application/json"), ("näme", b"\xff")]


def test_thousands_of_such_messages_are_read_and_freed_without_harm(broker: Broker, tmp_path: Path) -> None:
    """Each keeps a list with a hole in it: collecting, freeing and going on must not meet that, nor the error that was left pending."""
    rig = Rig.on(broker, tmp_path, ECHO, partitions=1).provision()
    name, count = full_name(rig.settings, REQUESTS), 6_000
    with bare(rig) as producer:
        for number in range(count):
            producer.send(name, b"%d" % number, b"k", 0, [(b"a", b"1"), (NAMES[number % 4] if number % 3 else b"b", b"%d" % number)])
    for _ in range(3):
        messages = consumed(rig, name, count)
        found = headers_of(messages)
        gc.collect()
        good = [None if number % 3 else [("a", b"1"), ("b", b"%d" % number)] for number in range(count)]
        assert found == [UNREADABLE_HEADERS if headers is None else headers for headers in good]
        assert [message.value() for message in messages] == [b"%d" % number for number in range(count)]
        del messages
        gc.collect()


def consumed(rig: Rig, name: str, count: int) -> list[Message]:
    """So many messages of partition 0, as the client hands them over."""
    consumer = reader(rig.settings)
    consumer.assign([TopicPartition(name, 0, 0)])
    messages: list[Message] = []
    while len(messages) < count:
        messages += [message for message in consumer.consume(count, 0.2) if message.error() is None]
    consumer.close()
    return messages
