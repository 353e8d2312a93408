"""The embedded broker keeps what it acknowledged through a restart and a kill, and gives transactions."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # exported, not in its __all__

from tests.stack import Broker, wait_until

PARTITIONS = 4
SKIPPED = "these partitions are likely deleted already"


def make_topic(broker: Broker, partitions: int = 1) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    client = AdminClient({"bootstrap.servers": broker.address})
    client.create_topics([NewTopic(name, partitions, 1)])[name].result(10)
    return name


def read(broker: Broker, topic: str, count: int) -> list[bytes]:
    """The first committed values of a topic."""
    consumer = Consumer(
        {"bootstrap.servers": broker.address, "group.id": topic, "auto.offset.reset": "earliest", "isolation.level": "read_committed"}
    )
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(values) < count and time.monotonic() < deadline:
        values += [value for message in consumer.consume(count, 0.2) if isinstance(value := message.value(), bytes)]
    consumer.close()
    return values


def read_all(broker: Broker, topic: str) -> list[bytes]:
    """Every committed value, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": topic,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    values: dict[int, list[bytes]] = {partition: [] for partition in range(PARTITIONS)}
    ended: set[int] = set()
    deadline = time.monotonic() + 60
    while len(ended) < PARTITIONS and time.monotonic() < deadline:
        for message in consumer.consume(10_000, 0.2):
            error = message.error()
            if error is None:
                values[message.partition() or 0].append(message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition() or 0)
    consumer.close()
    assert ended == set(values), "a transaction was never ended"
    return [value for found in values.values() for value in found]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_acknowledged_records_survive(broker: Broker, end: str) -> None:
    topic = make_topic(broker)
    producer = Producer({"bootstrap.servers": broker.address, "acks": "all", "log_level": 0})
    for number in range(100):
        producer.produce(topic, b"%d" % number)
    assert producer.flush(60) == 0
    getattr(broker, end)()
    broker.start()
    assert read(broker, topic, 100) == [b"%d" % number for number in range(100)]


def test_an_open_transaction_is_fenced_by_its_successor_and_never_seen(broker: Broker) -> None:
    topic = make_topic(broker)
    config = {"bootstrap.servers": broker.address, "transactional.id": topic, "log_level": 0}
    dead, successor = Producer(config), Producer(config)
    dead.init_transactions(60)
    dead.begin_transaction()
    dead.produce(topic, b"never")
    assert dead.flush(60) == 0
    successor.init_transactions(60)
    successor.begin_transaction()
    successor.produce(topic, b"committed")
    successor.commit_transaction(60)
    assert read(broker, topic, 1) == [b"committed"]


def test_a_topic_is_not_made_by_being_used(broker: Broker) -> None:
    name = f"no-{uuid.uuid4().hex[:8]}"
    client = AdminClient({"bootstrap.servers": broker.address})
    client.list_topics(name, timeout=10)
    assert name not in client.list_topics(timeout=10).topics


def end_of(broker: Broker, topic: str, level: IsolationLevel) -> list[int]:
    """How far each partition can be read: below its end as long as a transaction is open."""
    client = AdminClient({"bootstrap.servers": broker.address})
    latest: Any = OffsetSpec.latest
    asked = {TopicPartition(topic, partition): latest() for partition in range(PARTITIONS)}
    return [answer.result().offset for answer in client.list_offsets(asked, isolation_level=level, request_timeout=20).values()]


class Committing:
    """Transactions back to back, of one record to each of four partitions, until the first that fails; ``acknowledged`` says which."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self.config = {
            "bootstrap.servers": broker.address,
            "transactional.id": topic,
            "retry.backoff.ms": 1,
            "linger.ms": 0,
            "log_level": 0,
        }
        self._producer = Producer(self.config)
        self._topic = topic
        self._thread = threading.Thread(target=self._run, name="committing")
        self._ended = threading.Event()
        self.acknowledged: list[int] = []

    def __enter__(self) -> Committing:
        self._producer.init_transactions(60)
        self._thread.start()
        wait_until(lambda: len(self.acknowledged) >= 50, 60, "transactions")
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join()
        self._producer.purge()

    def _run(self) -> None:
        with suppress(KafkaException):
            while True:
                number = len(self.acknowledged)
                self._producer.begin_transaction()
                for partition in range(PARTITIONS):
                    self._producer.produce(self._topic, b"%d" % number, partition=partition)
                self._commit()
                self.acknowledged.append(number)

    def _commit(self) -> None:
        """Repeated while the answer does not come: a broker that is slow has not ended."""
        while True:
            try:
                self._producer.commit_transaction(2)
            except KafkaException as error:
                if self._ended.is_set() or not error.args[0].retriable():
                    raise
            else:
                return


@pytest.mark.parametrize("end", [pytest.param("stop", marks=pytest.mark.slow), "kill"])
def test_what_was_committed_while_the_broker_ended_is_whole(broker: Broker, end: str) -> None:
    """Kafka 4.3 takes a partition without a leader for a deleted one, and so tears transactions (KAFKA-20734).

    Most torn ones are ended by the next one of the same producer, which is why the broker's own word is looked for as well. The
    transaction under way may be whole or not there.
    """
    skipped = broker.log.read_text().count(SKIPPED)
    for _ in range(2):
        topic = make_topic(broker, PARTITIONS)
        with Committing(broker, topic) as committing:
            getattr(broker, end)()
        broker.start()
        Producer(committing.config).init_transactions(60)
        values = Counter(int(value) for value in read_all(broker, topic))
        assert end_of(broker, topic, IsolationLevel.READ_COMMITTED) == end_of(broker, topic, IsolationLevel.READ_UNCOMMITTED)
        assert {number: times for number, times in values.items() if times != PARTITIONS} == {}
        assert len(values) - len(committing.acknowledged) in (0, 1)
    assert broker.log.read_text().count(SKIPPED) == skipped
