"""The embedded broker keeps what it acknowledged through a restart and a kill, and gives transactions."""

from __future__ import annotations

import time
import uuid

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # exported, not in its __all__

from tests.stack import Broker


def make_topic(broker: Broker) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    client = AdminClient({"bootstrap.servers": broker.address})
    client.create_topics([NewTopic(name, 1, 1)])[name].result(10)
    return name


def read(broker: Broker, topic: str, count: int) -> list[bytes]:
    """The first committed values of a topic."""
    consumer = Consumer(
        {"bootstrap.servers": broker.address, "group.id": topic, "auto.offset.reset": "earliest", "isolation.level": "read_committed"}
    )
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + 20
    while len(values) < count and time.monotonic() < deadline:
        values += [value for message in consumer.consume(count, 0.2) if isinstance(value := message.value(), bytes)]
    consumer.close()
    return values


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_acknowledged_records_survive(broker: Broker, end: str) -> None:
    topic = make_topic(broker)
    producer = Producer({"bootstrap.servers": broker.address, "acks": "all", "log_level": 0})
    for number in range(100):
        producer.produce(topic, b"%d" % number)
    assert producer.flush(10) == 0
    getattr(broker, end)()
    broker.start()
    assert read(broker, topic, 100) == [b"%d" % number for number in range(100)]


def test_an_open_transaction_is_fenced_by_its_successor_and_never_seen(broker: Broker) -> None:
    topic = make_topic(broker)
    config = {"bootstrap.servers": broker.address, "transactional.id": topic, "log_level": 0}
    dead, successor = Producer(config), Producer(config)
    dead.init_transactions(20)
    dead.begin_transaction()
    dead.produce(topic, b"never")
    dead.flush(10)
    successor.init_transactions(20)
    successor.begin_transaction()
    successor.produce(topic, b"committed")
    successor.commit_transaction(20)
    assert read(broker, topic, 1) == [b"committed"]


def test_a_topic_is_not_made_by_being_used(broker: Broker) -> None:
    name = f"no-{uuid.uuid4().hex[:8]}"
    client = AdminClient({"bootstrap.servers": broker.address})
    client.list_topics(name, timeout=10)
    assert name not in client.list_topics(timeout=10).topics
