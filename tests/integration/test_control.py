"""Editing control topics on a real broker, also when two do it at once."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime

import pytest
from confluent_kafka import TopicPartition
from msgspec import structs

from millrace.infra.kafka.clients import admin, full_name
from millrace.infra.kafka.control import Control
from millrace.infra.kafka.follow import Follower
from millrace.infra.kafka.provision import Wanted, provision
from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.settings import Settings, convert
from millrace.schemas.errors import Stop, Unavailable, UsageError
from millrace.schemas.model import Route, Share
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.topics import ALLOWANCES, MODELS, POLICIES, REQUESTS, ROUTES, Kind
from millrace.schemas.wire import codec
from millrace.workers.replay.known import Upto
from tests.stack import Broker, wait_until


@pytest.fixture
def settings(broker: Broker) -> Settings:
    found = convert({"topic_prefix": f"t{uuid.uuid4().hex[:8]}-", "kafka": {"address": broker.address, "partitions": 1}})
    provision(found, Wanted(topics=(ROUTES, MODELS, REQUESTS), readers={}))
    return found


def route(version: int, serves: int, name: str = "m") -> Route:
    return Route(name=name, version=version, time=datetime.now(UTC), shares=(Share(version=serves),))


def serving(routes: Control[Route], name: str = "m") -> list[int]:
    return [version.shares[0].version for version in routes.of(name)]


def test_versions_follow_one_another_and_are_read_back_by_all(settings: Settings) -> None:
    mine: Control[Route] = Control(settings, ROUTES)
    for serves in (1, 2, 3):
        assert mine.append("m", lambda version, serves=serves: route(version, serves)).version == serves  # type: ignore[misc]
    mine.append("other", lambda version: route(version, 9, "other"))
    theirs: Control[Route] = Control(settings, ROUTES)
    assert serving(theirs) == serving(mine) == [1, 2, 3]
    assert [found.name for found in theirs.versions] == ["m", "other"]


def test_an_edit_that_came_second_is_told_so_and_changes_nothing(settings: Settings) -> None:
    first: Control[Route] = Control(settings, ROUTES)
    second: Control[Route] = Control(settings, ROUTES)
    first.append("m", lambda version: route(version, 1))
    with pytest.raises(UsageError, match="wrote version 1 of m on routes a moment earlier"):
        second.append("m", lambda version: route(version, 2))
    assert serving(second) == [1]
    second.append("m", lambda version: route(version, 3))
    first.refresh()
    assert serving(first) == [1, 3]


def test_of_many_that_edit_at_once_exactly_one_wins_each_version(settings: Settings) -> None:
    won: list[int] = []

    def edit(serves: int) -> None:
        routes: Control[Route] = Control(settings, ROUTES)
        barrier.wait()
        try:
            won.append(routes.append("m", lambda version: route(version, serves)).shares[0].version)
        except UsageError:
            return

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=edit, args=(serves,)) for serves in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert serving(Control(settings, ROUTES)) == won


def test_records_that_cannot_be_decoded_count_for_nothing(settings: Settings) -> None:
    publish(settings, [Outgoing("routes", b"m", b"not json"), Outgoing("routes", b"m", b'{"name":"m","version":1}')])
    routes: Control[Route] = Control(settings, ROUTES)
    assert routes.append("m", lambda version: route(version, 5)).version == 1


def test_a_record_that_the_topic_does_not_take_is_an_error_and_not_silence(settings: Settings) -> None:
    with pytest.raises(Unavailable, match="did not take 1 of 2 records"):
        publish(settings, [Outgoing("requests", None, b"{}"), Outgoing("requests", None, b"x" * (2 << 20))])


def test_a_topic_that_does_not_exist_names_the_command(settings: Settings) -> None:
    other = convert({"topic_prefix": "nowhere-", "kafka": {"address": settings.kafka.address}})
    with pytest.raises(UsageError, match="run `millrace provision`"):
        Control(other, ROUTES)


def policy(version: int) -> PolicyVersion:
    return PolicyVersion(
        experiment="bandit", version=version, plan_version=1, time=datetime.now(UTC), offsets={}, weights={"a": 1 / version}
    )


def learn(settings: Settings, *versions: int) -> None:
    own = codec(POLICIES)
    publish(settings, [Outgoing("policies", b"bandit", own.encode(event), own.headers(event.id)) for event in map(policy, versions)])


def forget(settings: Settings, below: int) -> None:
    """Let the log of policies begin at an offset, as its retention does."""
    client = admin(settings)  # kept until its future is done
    (done,) = client.delete_records([TopicPartition(full_name(settings, POLICIES), 0, below)]).values()
    done.result()


def read_on(follower: Follower, records: int) -> list[int]:
    """The offsets of the next records."""
    found: list[int] = []

    def there() -> bool:
        found.extend(record.offset for record in follower.read(0.05))
        return len(found) >= records

    wait_until(there, 30, f"{records} records")
    return found


def test_a_followed_topic_is_known_from_where_its_log_starts_and_a_control_topic_must_be_whole(settings: Settings) -> None:
    provision(settings, Wanted(topics=(POLICIES, ALLOWANCES), readers={}))
    learn(settings, 1, 2, 3, 4, 5)
    forget(settings, 3)
    routes: Control[Route] = Control(settings, ROUTES)
    routes.append("m", lambda version: route(version, 1))
    follower = Follower(settings, [ROUTES, POLICIES])
    assert sorted(record.place for record in follower.start()) == ["policies/0@3", "policies/0@4", "routes/0@0"]
    assert follower.versions == {"routes": 1, "policies": 5}
    learn(settings, 6, 7)
    assert read_on(follower, 2) == [5, 6]
    follower.close()

    replayed = Upto(settings, [ROUTES, POLICIES])
    replayed.ends = {"routes": 1, "policies": 6}
    assert [record.place for record in replayed.start()] == ["routes/0@0", "policies/0@3", "policies/0@4", "policies/0@5"]
    assert replayed.versions == {"routes": 1, "policies": 6}
    replayed.close()

    forget(settings, 7)
    empty = Follower(settings, [POLICIES])
    assert empty.start() == []
    assert empty.versions == {"policies": 7}
    learn(settings, 8)
    assert read_on(empty, 1) == [7]
    empty.close()


def test_a_follower_that_retention_overtakes_goes_on_where_the_log_starts(settings: Settings) -> None:
    """And misses nothing of another topic meanwhile. Of a control topic that is cut off, which must never be, it stops."""
    provision(settings, Wanted(topics=(POLICIES,), readers={}))
    learn(settings, 1, 2)
    routes: Control[Route] = Control(settings, ROUTES)
    follower = Follower(settings, [POLICIES, ROUTES])
    assert len(follower.start()) == 2
    learn(settings, 3, 4, 5, 6)
    forget(settings, 5)
    follower._consumer.seek(TopicPartition(full_name(settings, POLICIES), 0, 2))  # drops what it may have fetched already
    for serves in (1, 2):
        routes.append("m", lambda version, serves=serves: route(version, serves))  # type: ignore[misc]
    assert sorted(read_on(follower, 3)) == [0, 1, 5]
    assert follower.versions == {"policies": 6, "routes": 2}
    follower.close()
    as_control = Follower(settings, [structs.replace(POLICIES, kind=Kind.CONTROL)])
    with pytest.raises(Stop, match="Its retention must be unlimited"):
        as_control.start()
    as_control.close()
