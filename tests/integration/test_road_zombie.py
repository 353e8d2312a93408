"""A frozen inference worker thawed on the whole road, while requests flow and its successor works: one of them ends, nothing is doubled."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from millrace.infra.kafka.transaction import CALL_SECONDS
from tests.integration.harness import Supervised
from tests.integration.harness.publish import pause
from tests.integration.road import PROGRAM, Road
from tests.stack import Broker, ClickHouse, wait_until

POINT = "before commit"
SESSION_SECONDS = 1.0

pytestmark = pytest.mark.timeout(900)
FROZEN_SECONDS = CALL_SECONDS + 0.5


def test_a_zombie_thawed_under_load_ends_and_its_successor_works_on(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """Frozen for less than its session: the group knows the successor alone, so the zombie is the one that ends."""
    road = Road(broker, clickhouse, tmp_path, commit_patience_seconds=30.0)
    with ExitStack() as stack:
        stack.enter_context(road.archiver())
        with road.traffic.flowing():
            zombie = stack.enter_context(road.inference(POINT, 5, "stop"))
            wait_until(lambda: zombie.frozen, 60, "frozen with a transaction open")
            successor = stack.enter_context(road.inference())
            successor.wait_for("Assigned")
            road.traffic.reach(100)
            zombie.thaw()
            assert zombie.wait() == 1
            road.traffic.reach(100)
        road.holds()
        assert (zombie.failures, successor.failures) == (["Fenced"], [])
        successor.drain()


@pytest.mark.slow
def test_a_zombie_thawed_under_load_after_its_session_ended(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """Its commit's time and patience are over too: it replaces its producer, which fences the successor's, before it learns that it lost
    its place in the group. The supervisor starts the successor again; in the end one of them works."""
    road = Road(broker, clickhouse, tmp_path, inference_session_seconds=SESSION_SECONDS)
    with ExitStack() as stack:
        stack.enter_context(road.archiver())
        with road.traffic.flowing():
            zombie = stack.enter_context(road.inference(POINT, 5, "stop"))
            wait_until(lambda: zombie.frozen, 60, "frozen with a transaction open")
            successor = stack.enter_context(Supervised(road.rig, PROGRAM))
            successor.worker.wait_for("Assigned")
            pause(FROZEN_SECONDS)
            zombie.thaw()
            assert zombie.wait() == 1
            road.traffic.reach(100)
        road.holds()
        assert zombie.failures == ["Fenced"]
        assert set(successor.failures) <= {"Fenced"}
        successor.drain()
