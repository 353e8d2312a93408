"""Workers killed at every named point of a transaction, and at random: nothing lost, doubled, reordered or torn."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.integration.harness import COUNTING, ECHO, Bench, Kind, Publisher, Rig, WorkerProcess, check, gather, settled
from tests.integration.harness.publish import pause
from tests.stack import Broker, wait_until

POINTS = ("before produce", "after produce", "before offsets", "after offsets", "before commit", "after commit")
BOTH = pytest.mark.parametrize("bench", [ECHO, COUNTING], ids=lambda bench: bench.name)


@BOTH
def test_killed_at_each_point(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    rig = Rig.on(broker, tmp_path, bench).provision()
    with Publisher(rig) as publisher:
        publisher.keep_on(400)
        for point in POINTS:
            with WorkerProcess(rig, point, 4) as worker:
                assert worker.wait() == -9
        publisher.stop()
        with WorkerProcess(rig) as worker:
            settled(rig, worker, 120)
            worker.drain()
        assert check(gather(rig, publisher)) == []


def killed_at_random(broker: Broker, folder: Path, bench: Bench, kills: int, records_per_second: int) -> None:
    rig = Rig.on(broker, folder, bench, partitions=3).provision()
    chance = random.Random(kills)
    with Publisher(rig) as publisher:
        publisher.keep_on(records_per_second)
        for _ in range(kills):
            with WorkerProcess(rig) as worker:
                worker.wait_for("Assigned")
                pause(chance.uniform(0.0, 0.8))
                worker.kill()
        publisher.stop()
        with WorkerProcess(rig) as worker:
            settled(rig, worker, 120)
            worker.drain()
        assert check(gather(rig, publisher)) == []


@BOTH
def test_killed_at_random(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    killed_at_random(broker, tmp_path, bench, 3, 1_000)


@pytest.mark.slow
@BOTH
def test_killed_at_random_many_times(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    killed_at_random(broker, tmp_path, bench, 40, 2_000)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_point_again_and_again(broker: Broker, tmp_path: Path, bench: Bench, point: str) -> None:
    rig = Rig.on(broker, tmp_path, bench, partitions=3).provision()
    with Publisher(rig) as publisher:
        publisher.keep_on(1_000)
        for nth in (1, 2, 3, 5, 8, 13, 21):
            with WorkerProcess(rig, point, nth) as worker:
                assert worker.wait() == -9
        publisher.stop()
        with WorkerProcess(rig) as worker:
            settled(rig, worker, 120)
            worker.drain()
        assert check(gather(rig, publisher)) == []


def test_the_harness_bites(broker: Broker, tmp_path: Path) -> None:
    """The same kill, of a loop that commits later than it produces, is found out."""
    rig = Rig.on(broker, tmp_path, ECHO).provision()
    with Publisher(rig) as publisher:
        publisher.burst(200)
        program = "tests.integration.harness.naive"
        with WorkerProcess(rig, "before commit", 2, program=program) as worker:
            assert worker.wait() == -9
        publisher.burst(50)
        with WorkerProcess(rig, program=program) as worker:
            settled(rig, worker)
            wait_until(lambda: sum(gather(rig).positions.values()) >= 250, 60, "all offsets committed")
        kinds = {anomaly.kind for anomaly in check(gather(rig, publisher))}
    assert Kind.DUPLICATE in kinds
    assert Kind.LOST not in kinds
