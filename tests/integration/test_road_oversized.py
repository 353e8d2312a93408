"""Records as large as a topic takes, on the whole road: at the limit answered, past it dead-lettered whole, and all of them archived."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from msgspec import Struct

from millrace.infra.kafka.clients import full_name, producer
from millrace.schemas.limits import Limits
from millrace.schemas.record import Record
from millrace.schemas.topics import PREDICTIONS, REQUESTS
from millrace.schemas.wire import codec
from tests.integration.archive import settle
from tests.integration.harness.readback import commits, in_order, letters
from tests.integration.road import PARTITIONS, Road
from tests.stack import Broker, ClickHouse

LIMIT = Limits().record_bytes
FRAMING_BYTES = 100
"""At least what Kafka needs beside value and key of a record that is alone in its batch."""
LARGEST = REQUESTS.record_bytes - FRAMING_BYTES


class Sent(Struct, frozen=True):
    """A request that was published: its id, key and value, and whether it is too large to be answered."""

    id: str
    key: bytes | None
    value: bytes
    refused: bool = False


def sized(name: str, key: bytes | None, size_bytes: int = 0) -> Sent:
    """A good request of exactly this size: what fills it stands among its features, which a prediction carries on byte for byte."""
    head = b'{"id": "%s", "unit_id": "u-%s", "model": "m", "features": {"f0": 1, ' % (name.encode(), name.encode())
    tail = b'"f1": 2}}'
    return Sent(name, key, head + b" " * (size_bytes - len(head) - len(tail)) + tail, size_bytes > LIMIT)


def traffic() -> list[Sent]:
    """Small requests with large ones between them, keyed and not."""
    sent = [sized("first", None)]
    for key in (b"k", None, b"k" * 1_000):
        for size in (LIMIT - 1, LIMIT, LIMIT + 1, LARGEST - len(key or b"")):
            name = f"{'none' if key is None else len(key)}-{size}"
            sent += [sized(name, key, size), sized(f"beside-{name}", key)]
    return sent


def deliver(client: Producer, topic: str, one: Sent, partition: int) -> None:
    """Publish one request and wait for it; raises KafkaException where the broker refuses it."""
    answers: list[KafkaError | None] = []

    def answered(error: KafkaError | None, message: Message) -> None:
        answers.append(error)

    client.produce(topic, one.value, one.key, partition, on_delivery=answered)
    assert client.flush(60) == 0
    if (error := answers[0]) is not None:
        raise KafkaException(error)


def test_what_is_too_large_is_dead_lettered_whole_beside_neighbours(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    road, sent = Road(broker, clickhouse, tmp_path), traffic()
    client, topic = producer(road.settings), full_name(road.settings, REQUESTS)
    for number, one in enumerate(sent):
        deliver(client, topic, one, number // 2 % PARTITIONS)
    with pytest.raises(KafkaException, match="MSG_SIZE_TOO_LARGE"):
        deliver(client, topic, sized("no", None, REQUESTS.record_bytes + 1), 0)
    with ExitStack() as stack:
        workers = stack.enter_context(road.inference()), stack.enter_context(road.archiver())
        road.consumed(len(sent))
        settle(road._archive, 120)
        for worker in workers:
            worker.drain()
            assert worker.failures == []
    answered_whole(road, [one for one in sent if not one.refused])
    lettered_whole(road, [one for one in sent if one.refused])
    archived_whole(road, sent)


def test_what_was_only_small_while_compressed_is_archived_whole(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """Brokers measure what a producer compressed. The letter would be larger than its topic takes: it is shortened, and the row is not."""
    road, size_bytes = Road(broker, clickhouse, tmp_path), 20_000_000
    client = Producer({"bootstrap.servers": broker.address, "compression.type": "gzip", "message.max.bytes": 2 * size_bytes})
    topic = full_name(road.settings, REQUESTS)
    for one in (sized("before", None), sized("large", b"k", size_bytes), Sent("noise", None, b"x" * size_bytes), sized("after", None)):
        deliver(client, topic, one, 0)
    with ExitStack() as stack:
        workers = stack.enter_context(road.inference()), stack.enter_context(road.archiver())
        road.consumed(4)
        settle(road._archive, 120)
        for worker in workers:
            worker.drain()
            assert worker.failures == []
    assert [letter.offset for letter in letters(road.settings)] == [1, 2]
    found = [codec(PREDICTIONS).decode(record.value, record.headers) for record in in_order(road.settings, PREDICTIONS)]
    assert sorted((one.request_id, one.status.value) for one in found) == [("after", "ok"), ("before", "ok")]
    assert road.counted(f"SELECT count() FROM requests WHERE length(features) > {size_bytes - 200}") == [(1,)]
    assert road.counted("SELECT length(_raw) FROM requests WHERE _error != ''") == [(size_bytes,)]


def answered_whole(road: Road, wanted: list[Sent]) -> None:
    """Each once, well, with the features as they were sent."""
    found = [codec(PREDICTIONS).decode(record.value, record.headers) for record in in_order(road.settings, PREDICTIONS)]
    assert sorted((one.request_id, one.status.value) for one in found) == sorted((one.id, "ok") for one in wanted)
    values = {one.id: one.value for one in wanted}
    assert all(bytes(one.features) in values[one.request_id] and b'"f1"' in bytes(one.features) for one in found)
    assert sum(commit.records for commit in commits(road.settings)) == len(traffic())


def lettered_whole(road: Road, wanted: list[Sent]) -> None:
    """Each once, with all its bytes, its key, its place and the reason."""
    places = {(record.partition, record.offset): record for record in in_order(road.settings, REQUESTS)}
    found = letters(road.settings)
    assert sorted(letter.value or b"" for letter in found) == sorted(one.value for one in wanted)
    for letter in found:
        original: Record = places[(letter.partition, letter.offset)]
        assert (letter.value, letter.key) == (original.value, original.key)
        assert letter.reason == f"$: the record has {len(letter.value or b'')} bytes, the limit is {LIMIT}"


def archived_whole(road: Road, sent: list[Sent]) -> None:
    """The letters and the large answers are rows, with all their bytes."""
    refused = [one for one in sent if one.refused]
    assert road.counted("SELECT count(), sum(length(value)) FROM dead_letters WHERE _error = ''") == [
        (len(refused), sum(len(one.value) for one in refused))
    ]
    assert road.counted("SELECT count() FROM requests WHERE _error = ''") == [(len(sent),)]
    assert road.counted("SELECT count() FROM v_decisions WHERE status = 'ok'") == [(len(sent) - len(refused),)]
