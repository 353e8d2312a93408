"""Editing control topics on a real broker, also when two do it at once."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime

import pytest

from millrace.infra.kafka.control import Control
from millrace.infra.kafka.provision import Wanted, provision
from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.settings import Settings, convert
from millrace.schemas.errors import Unavailable, UsageError
from millrace.schemas.model import Route, Share
from millrace.schemas.topics import MODELS, REQUESTS, ROUTES
from tests.stack import Broker


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
