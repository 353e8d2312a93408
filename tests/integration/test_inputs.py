"""Does a member of a group read on after whatever happens to its assignment?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millrace.infra.kafka.clients import Slot
from millrace.infra.kafka.inputs import Inputs
from millrace.infra.kafka.positions import Place, Position
from millrace.schemas.topics import REQUESTS
from tests.integration.harness import ECHO, Publisher, Rig
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
    return Rig.on(broker, tmp_path, ECHO, session_timeout_seconds=2.0).provision()


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
