"""Provisioning and offsets on a real broker."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from millrace.infra.kafka import clients, offsets
from millrace.infra.kafka.offsets import Start
from millrace.infra.kafka.provision import Wanted, provision
from millrace.infra.settings import Settings, convert
from millrace.schemas.commit import Commit, Range
from millrace.schemas.errors import OffsetsLost, SettingsError, UsageError
from millrace.schemas.event import from_ms
from millrace.schemas.topics import ALLOWANCES, COMMITS, READERS, REQUESTS, STATEFUL, TOPICS, changelog
from millrace.schemas.wire import codec
from tests.stack import Broker, wait_until

EVERY = [topic.name for topic in TOPICS] + [changelog(role) for role in STATEFUL]
ONE_PARTITION = ("-models", "-routes", "-experiments", "-policies", "-allowances")
SMALL = Wanted(topics=(REQUESTS, COMMITS, ALLOWANCES), readers={"inference": (REQUESTS,)}, changelogs=("joiner-changelog",))


@pytest.fixture
def settings(broker: Broker) -> Settings:
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    return convert(
        {"topic_prefix": prefix, "kafka": {"address": broker.address, "partitions": 3}, "runner": {"session_timeout_seconds": 1.0}}
    )


@pytest.fixture
def member(settings: Settings) -> Iterator[Consumer]:
    """A live, dynamic member of the group ``inference``, which leaves at once when it is closed."""
    provision(settings, Wanted(topics=SMALL.topics, readers={}))
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka.address, "group.id": f"{settings.topic_prefix}inference", "enable.auto.commit": False}
    )
    consumer.subscribe([clients.full_name(settings, REQUESTS)])
    deadline = time.monotonic() + 60
    while not consumer.assignment() and time.monotonic() < deadline:
        consumer.poll(0.1)
    assert consumer.assignment()
    yield consumer
    consumer.close()


def committed(settings: Settings, role: str, topic: str) -> list[tuple[int, dict[str, object]]]:
    consumer = Consumer({"bootstrap.servers": settings.kafka.address, "group.id": f"{settings.topic_prefix}{role}"})
    places = [TopicPartition(settings.topic_prefix + topic, number) for number in range(settings.kafka.partitions)]
    try:
        return [(place.offset, json.loads(place.metadata) if place.metadata else {}) for place in consumer.committed(places, timeout=10)]
    finally:
        consumer.close()


def produce(settings: Settings, topic: str, partition: int, values: list[bytes]) -> None:
    producer = clients.producer(settings)
    for value in values:
        producer.produce(settings.topic_prefix + topic, value, partition=partition)
    assert producer.flush(20) == 0


def forget_offsets(settings: Settings, group: str, topic: str) -> None:
    """What offset expiry does: the group's offsets of a topic are gone."""
    client = clients.admin(settings)
    for future in client.delete_consumer_groups([group]).values():
        future.result()
    assert all(offset < 0 for offset, _ in committed(settings, group.removeprefix(settings.topic_prefix), topic))


def test_everything_is_made_once_and_found_the_second_time(settings: Settings) -> None:
    changes = provision(settings)
    assert [change.name for change in changes if change.kind == "topic"] == [settings.topic_prefix + name for name in EVERY]
    infos = clients.describe(settings, [settings.topic_prefix + topic.name for topic in TOPICS])
    assert {info.partitions for name, info in infos.items() if name.endswith(ONE_PARTITION)} == {1}
    for role, topics in READERS.items():
        for topic in topics:
            start, metadata = committed(settings, role, topic.name)[0]
            assert (start, metadata) == (0, {"topic_id": infos[settings.topic_prefix + topic.name].topic_id})
    assert provision(settings) == []


def test_an_offset_that_stands_is_never_moved(settings: Settings) -> None:
    provision(settings, SMALL)
    produce(settings, "requests", 1, [b"{}"] * 5)
    offsets.reset(settings, "inference", [settings.topic_prefix + "requests"], 4)
    assert provision(settings, SMALL) == []
    assert [offset for offset, _ in committed(settings, "inference", "requests")] == [4, 4, 4]


def test_a_role_that_comes_later_starts_at_the_logs_start_or_end(settings: Settings) -> None:
    provision(settings, SMALL)
    produce(settings, "requests", 2, [b"{}"] * 5)
    provision(settings, Wanted(topics=(REQUESTS,), readers={"early": (REQUESTS,)}))
    provision(settings, Wanted(topics=(REQUESTS,), readers={"late": (REQUESTS,)}), Start.LATEST)
    assert [offset for offset, _ in committed(settings, "early", "requests")] == [0, 0, 0]
    assert [offset for offset, _ in committed(settings, "late", "requests")] == [0, 0, 5]


def test_other_partitions_than_the_settings_say_are_refused(settings: Settings) -> None:
    provision(settings, SMALL)
    other = convert({"topic_prefix": settings.topic_prefix, "kafka": {"address": settings.kafka.address, "partitions": 5}})
    with pytest.raises(SettingsError, match=r"requests has 3 partitions and the settings say 5.*kafka\.partitions"):
        provision(other, SMALL)


def test_a_topic_with_producers_times_is_refused(settings: Settings) -> None:
    client = clients.admin(settings)
    name = settings.topic_prefix + "requests"
    for future in client.create_topics([NewTopic(name, 3, 1)]).values():
        future.result()
    with pytest.raises(SettingsError, match=r"message\.timestamp\.type=CreateTime and must have LogAppendTime"):
        provision(settings, SMALL)


def test_provisioning_beside_a_live_worker_changes_nothing(settings: Settings, member: Consumer) -> None:
    assert provision(settings, Wanted(topics=SMALL.topics, readers={})) == []
    with pytest.raises(UsageError, match="live members"):
        provision(settings, SMALL)


def test_a_topic_that_a_group_reads_from_now_on_waits_until_its_workers_have_ended(settings: Settings, member: Consumer) -> None:
    """As after an upgrade: whoever ended a moment ago is a member until its session is over."""
    leaving = threading.Timer(1.0, member.close)
    leaving.start()
    provision(settings, Wanted(topics=(REQUESTS,), readers={"inference": (REQUESTS,)}))
    leaving.join()
    assert [offset for offset, _ in committed(settings, "inference", "requests")] == [0, 0, 0]


def test_reset_refuses_a_group_with_live_members(settings: Settings, request: pytest.FixtureRequest) -> None:
    provision(settings, SMALL)
    member: Consumer = request.getfixturevalue("member")
    with pytest.raises(UsageError, match="stop its workers"):
        offsets.reset(settings, "inference", [settings.topic_prefix + "requests"], Start.EARLIEST)
    member.close()
    group, client = f"{settings.topic_prefix}inference", clients.admin(settings)
    wait_until(lambda: not client.describe_consumer_groups([group])[group].result(10).members, 60, "the member has left")
    assert set(offsets.reset(settings, "inference", [settings.topic_prefix + "requests"], Start.EARLIEST).values()) == {0}
    assert committed(settings, "inference", "requests")[0][1]["reset"] is True


def test_lost_offsets_are_not_taken_for_a_first_start_and_come_back_from_commits(settings: Settings) -> None:
    provision(settings, SMALL)
    produce(settings, "requests", 0, [b"{}"] * 9)
    name = settings.topic_prefix + "requests"
    topic_id = clients.describe(settings, [name])[name].topic_id
    spans = [Range(topic="requests", partition=0, start=a, end=b, topic_id=topic_id) for a, b in ((0, 3), (3, 7))]
    commits = [Commit(id=str(span.start), time=from_ms(0), worker="inference", slot="inference-0", inputs=(span,)) for span in spans]
    produce(settings, "commits", 0, [codec(COMMITS).encode(commit) for commit in commits])
    forget_offsets(settings, f"{settings.topic_prefix}inference", "requests")
    with pytest.raises(OffsetsLost, match="offsets reset inference --to commits"):
        provision(settings, SMALL)
    offsets.reset(settings, "inference", [name], Start.COMMITS)
    assert [offset for offset, _ in committed(settings, "inference", "requests")] == [7, 0, 0]
    assert provision(settings, SMALL) == []


def test_a_role_that_reads_a_topic_which_is_not_provisioned_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"joiner reads .*requests, which is not among the topics"):
        provision(settings, Wanted(topics=(COMMITS,), readers={"joiner": (REQUESTS,)}))
