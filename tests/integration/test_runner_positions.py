"""Where a group stands: lost offsets, topics made anew, records that expired. In each case nothing is guessed and nothing processed."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from millrace.infra.kafka import offsets
from millrace.infra.kafka.clients import admin, describe, full_name, group_name
from millrace.infra.kafka.offsets import Start
from millrace.schemas.errors import NotCoPartitioned, OffsetsLost, Stop, TopicRecreated
from millrace.schemas.topics import ASSIGNMENTS, REQUESTS
from tests.integration.harness import COUNTING, ECHO, Bench, InThread, Publisher, Rig, check, delete_topic, gather, settled
from tests.integration.harness.readback import outputs
from tests.stack import Broker, wait_until

BOTH = pytest.mark.parametrize("bench", [ECHO, COUNTING], ids=lambda bench: bench.name)


def forget_offsets(rig: Rig) -> None:
    """What offset expiry does; the group must be empty, so its last static member's session must have ended."""
    client, group = admin(rig.settings), group_name(rig.settings, rig.bench.role)

    def deleted() -> bool:
        (future,) = client.delete_consumer_groups([group]).values()
        return future.exception() is None

    wait_until(deleted, 60, f"group {group} deleted")


@BOTH
def test_lost_offsets_stop_the_worker_and_come_back_from_commits(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    rig = Rig.on(broker, tmp_path, bench, session_timeout_seconds=1.0).provision()
    with Publisher(rig) as publisher:
        publisher.burst(100)
        with InThread(rig):
            settled(rig)
        forget_offsets(rig)
        publisher.burst(100)
        before = outputs(rig)
        with InThread(rig) as worker:
            error = worker.error()
            assert isinstance(error, OffsetsLost)
            assert f"`millrace offsets reset {bench.role} --to commits`" in str(error)
        assert outputs(rig) == before
        settings = rig.settings
        offsets.reset(settings, bench.role, [full_name(settings, topic) for topic in bench.inputs], Start.COMMITS)
        with InThread(rig):
            settled(rig)
        assert check(gather(rig, publisher)) == []


def test_a_topic_made_anew_while_nobody_looked(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO).provision()
    with Publisher(rig) as publisher:
        publisher.burst(50)
        with InThread(rig):
            settled(rig)
        before = outputs(rig)
        delete_topic(rig.settings, full_name(rig.settings, REQUESTS))
        Rig(Bench("none", "nobody", (), ECHO.output, ECHO.make, stateless=True), rig.tree).provision()
        publisher.burst(60)
        with InThread(rig) as worker:
            error = worker.error()
            assert isinstance(error, OffsetsLost | TopicRecreated)
            assert f"`millrace offsets reset {ECHO.role} --to earliest`" in str(error)
        assert outputs(rig) == before


def test_a_topic_made_anew_while_it_is_read(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO, identity_check_seconds=0.2).provision()
    with Publisher(rig) as publisher, InThread(rig) as worker:
        publisher.burst(50)
        settled(rig)
        delete_topic(rig.settings, full_name(rig.settings, REQUESTS))
        Rig(Bench("none", "nobody", (), ECHO.output, ECHO.make, stateless=True), rig.tree).provision()
        error = worker.error()
        assert isinstance(error, OffsetsLost | TopicRecreated)  # the new log may be found too short before its id is looked at
        assert f"`millrace offsets reset {ECHO.role} --to earliest`" in str(error)


def test_records_that_expired_before_they_were_read(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO, partitions=1).provision()
    with Publisher(rig) as publisher:
        publisher.burst(20)
        with InThread(rig):
            settled(rig)
        publisher.burst(30)
        client, name = admin(rig.settings), full_name(rig.settings, REQUESTS)
        for future in client.delete_records([TopicPartition(name, 0, 40)]).values():
            future.result()
        with InThread(rig) as worker:
            error = worker.error()
            assert isinstance(error, OffsetsLost)
            assert "is not in the log any more" in str(error)
        assert len(outputs(rig)) == 20


def test_joined_topics_that_differ_in_partitions(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, COUNTING).provision()
    delete_topic(rig.settings, full_name(rig.settings, ASSIGNMENTS))
    other = Rig(Bench("none", "nobody", (), ECHO.output, ECHO.make, stateless=True), rig.tree)
    wait_until(lambda: provisions(other.at(kafka=rig.tree["kafka"] | {"partitions": 3})), 60, "assignments made anew")
    wait_until(lambda: three_partitions(rig), 60, "assignments with three partitions")
    with InThread(rig) as worker:
        error = worker.error()
        assert isinstance(error, NotCoPartitioned)
        assert "same number of partitions" in str(error) or "assigned apart" in str(error)  # as soon as Kafka tells of the new one


def three_partitions(rig: Rig) -> bool:
    """Whether the broker shows it by now: the controller answers before."""
    return [info.partitions for info in describe(rig.settings, [full_name(rig.settings, ASSIGNMENTS)]).values()] == [3]


def provisions(rig: Rig) -> bool:
    """Make the one topic that is missing; the others have other partitions than these settings say."""
    from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

    name = full_name(rig.settings, "assignments")
    client = admin(rig.settings)
    (future,) = client.create_topics([NewTopic(name, rig.settings.kafka.partitions, 1)]).values()
    return future.exception() is None


def test_topics_that_do_not_exist(broker: Broker, tmp_path: Path) -> None:
    with InThread(Rig.on(broker, tmp_path, ECHO)) as worker:
        error = worker.error()
        assert isinstance(error, Stop)
        assert "Run `millrace provision`" in str(error)
