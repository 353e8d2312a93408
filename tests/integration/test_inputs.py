"""Does a member of a group read on after whatever happens to its assignment?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from millrace.infra.kafka.clients import Slot, full_name
from millrace.infra.kafka.inputs import GONE, Inputs
from millrace.infra.kafka.positions import Metadata, Place, Position
from millrace.schemas.errors import Stop, TopicRecreated
from millrace.schemas.topics import REQUESTS
from tests.integration.harness import ECHO, Publisher, Rig, delete_topic
from tests.stack import Broker


class Told:
    """Remembers how often it was told of an assignment, and of what."""

    def __init__(self) -> None:
        self.assignments: list[list[Place]] = []

    def assigned(self, positions: dict[Place, Position]) -> None:
        self.assignments.append(sorted(positions))

    def revoked(self, places: list[Place], *, lost: bool) -> None:
        """Nothing is under way."""


@pytest.fixture
def rig(broker: Broker, tmp_path: Path) -> Rig:
    return Rig.on(broker, tmp_path, ECHO, session_timeout_seconds=10.0).provision()


@contextmanager
def member(rig: Rig, ordinal: int, told: Told) -> Iterator[Inputs]:
    """A member of the rig's group."""
    inputs = Inputs(rig.settings, Slot(ECHO.role, ordinal), (REQUESTS,), told)
    inputs.start()
    try:
        yield inputs
    finally:
        inputs.close()


def poll(inputs: list[Inputs], records: int, told: Told, assignments: int) -> set[int]:
    """Poll all until the first has so many records and assignments; the partitions of its records."""
    deadline, seen = time.monotonic() + 60, list[int]()
    while len(seen) < records or len(told.assignments) < assignments:
        assert time.monotonic() < deadline, (len(seen), told.assignments)
        seen += [record.partition for record in inputs[0].poll(100, 0.05, 0.0).records]
        for other in inputs[1:]:
            other.poll(100, 0.05, 0.0)
    return set(seen)


def test_a_commit_that_no_repeat_can_mend_stops(rig: Rig) -> None:
    told = Told()
    with member(rig, 0, told) as inputs:
        poll([inputs], 0, told, 1)
        place = told.assignments[0][0]
        assert inputs.commit({place: Position(0, Metadata("a"))}) == {place}
        with pytest.raises(Stop, match="takes no commit"):
            inputs.commit({place: Position(0, Metadata("a" * 5_000))})


def test_a_topic_that_is_said_to_be_gone_is_asked_for(rig: Rig) -> None:
    """A broker may not have heard of a topic yet, which is no reason to stop; where it is gone, the command is named."""
    told, quick = Told(), rig.tree["kafka"] | {"client": {"topic.metadata.refresh.interval.ms": 1_000}}
    with member(rig.at(kafka=quick), 0, told) as inputs:
        inputs._raise(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), "a topic of which nothing was read")
        poll([inputs], 0, told, 1)
        for code in GONE:
            inputs._raise(KafkaError(code), "a topic that is still there")
        delete_topic(rig.settings, full_name(rig.settings, REQUESTS))
        with pytest.raises(TopicRecreated, match=f"`millrace offsets reset {ECHO.role} --to earliest`"):
            poll([inputs], 1, told, 1)


def test_what_was_paused_before_a_rebalance_is_read_after_it(rig: Rig) -> None:
    """A client keeps a partition paused for ever, whoever owns it meanwhile; nobody who is given it anew knows of that."""
    told = Told()
    with Publisher(rig) as publisher, member(rig, 0, told) as first:
        poll([first], 0, told, 1)
        assert len(told.assignments[0]) == 2
        first.pause(told.assignments[0])
        with member(rig, 1, Told()) as second:
            poll([first, second], 0, told, 2)
            first.pause(told.assignments[1])
        poll([first], 0, told, 3)
        assert told.assignments[2] == told.assignments[0]
        publisher.burst(50)
        assert poll([first], 50, told, 3) == {0, 1}
