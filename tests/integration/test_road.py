"""The whole road with the real workers: whatever dies, freezes, leaves or goes away, each request is decided and archived exactly once."""

from __future__ import annotations

import itertools
import random
import time
import urllib.request
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest

from millrace.schemas.prediction import Prediction
from millrace.schemas.topics import DEAD_LETTERS, PREDICTIONS
from millrace.schemas.wire import codec
from tests.integration.harness import WorkerProcess
from tests.integration.harness.publish import pause
from tests.integration.harness.readback import commits, in_order, letters
from tests.integration.road import Kind, Road, of_kinds
from tests.integration.road.traffic import POISON, POISONS, reason_of
from tests.stack import Broker, ClickHouse, claim_base, wait_until

POINTS = ("before produce", "after produce", "before offsets", "after offsets", "before commit", "after commit")

pytestmark = pytest.mark.timeout(900)


def both(road: Road, stack: ExitStack) -> tuple[WorkerProcess, WorkerProcess]:
    """Inference and archiver, both at work."""
    workers = stack.enter_context(road.inference()), stack.enter_context(road.archiver())
    for worker in workers:
        worker.wait_for("Assigned", seconds=60)
    return workers


def killed(road: Road, kills: int, seed: int) -> None:
    """Kill inference and archiver in turn, at random, so often each."""
    chance = random.Random(seed)
    for _ in range(kills):
        with road.inference() as inference, road.archiver() as archiver:
            for worker in (inference, archiver):
                worker.wait_for("Assigned", seconds=60)
            for worker in chance.sample([inference, archiver], 2):
                pause(chance.uniform(0.0, 0.5))
                worker.kill()


def test_killed_at_each_point_and_at_random_under_load(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    road = Road(broker, clickhouse, tmp_path)
    with road.traffic.flowing():
        with road.archiver():
            for point in POINTS:
                with road.inference(point, 5) as doomed:
                    assert doomed.wait(60) == -9
        killed(road, 3, seed=1)
    with road.inference(), road.archiver():
        road.holds()
        assert len(commits(road.settings)) >= 4 * len(POINTS)  # what dies in its fifth turn has committed four


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_killed_at_random_many_times(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    road = Road(broker, clickhouse, tmp_path)
    with road.traffic.flowing():
        killed(road, 30, seed=2)
    with road.inference(), road.archiver():
        road.holds()


@pytest.mark.slow
def test_slots_change_hands_under_load(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """A zombie beside its successor; a second slot that comes and goes; new versions under way; all asked to end, and begun again."""
    road = Road(broker, clickhouse, tmp_path, inference_session_seconds=3.0, commit_patience_seconds=30.0)
    with road.archiver() as archiver:
        with road.inference("before commit", 5, "stop") as zombie:
            with road.traffic.flowing():
                wait_until(lambda: zombie.frozen, 60, "frozen with a transaction open")
                with road.inference() as successor:
                    successor.wait_for("Assigned", seconds=60)
                    road.traffic.reach(200)
            with road.inference() as successor:
                road.answered()
                successor.drain()
            wakes_up_fenced(road, zombie, archiver)
        with road.traffic.flowing(), road.inference() as first:
            first.wait_for("Assigned", seconds=60)
            serve_next_version(road, 2)
            with road.inference(ordinal=1) as second:
                second.wait_for("Assigned", seconds=60)
                serve_next_version(road, 3)
                road.traffic.reach(200)
                second.drain()
            first.wait_for("Assigned", 3, seconds=60)
            road.traffic.reach(200)
            for worker in (first, archiver):
                worker.terminate()
            assert [worker.wait(60) for worker in (first, archiver)] == [0, 0]
    with road.inference(), road.archiver():
        road.holds()
    assert {commit.slot for commit in commits(road.settings)} == {"inference-0", "inference-1"}
    versions_switch_once(road)


def wakes_up_fenced(road: Road, zombie: WorkerProcess, archiver: WorkerProcess) -> None:
    """With nothing else at work, what a zombie publishes would be seen: it ends itself, and no log has grown."""
    archiver.freeze()
    before = road.ends()
    zombie.thaw()
    assert zombie.wait(60) == 1
    assert zombie.failures == ["Fenced"]
    assert road.ends() == before
    archiver.thaw()


def serve_next_version(road: Road, version: int) -> None:
    """Publish and route a version, and wait until it answers in every partition."""
    assert road.add_version(seed=version) == version
    road.route(version)

    def serves() -> bool:
        newest = {partition: events[-1].version for partition, events in by_partition(road).items()}
        return set(newest.values()) == {version}

    wait_until(serves, 60, f"version {version} answers everywhere")


def by_partition(road: Road) -> dict[int, list[Prediction]]:
    """The predictions of each partition, in order."""
    decode, found = codec(PREDICTIONS).decode, defaultdict(list)
    for record in in_order(road.settings, PREDICTIONS):
        found[record.partition].append(decode(record.value, record.headers))
    return found


def versions_switch_once(road: Road) -> None:
    """Each partition goes from version to version without looking back, and no micro-batch (a slot's predictions of one now) mixes two."""
    for events in by_partition(road).values():
        assert [version for version, _ in itertools.groupby(event.version for event in events)] == [1, 2, 3]
        versions_of_batch: dict[object, set[int]] = defaultdict(set)
        for event in events:
            versions_of_batch[event.time].add(event.version)
        assert {len(versions) for versions in versions_of_batch.values()} == {1}


def test_the_broker_and_then_clickhouse_go_away_under_load(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """No transaction runs out, however long a restart takes on a slow machine: the worker would be told that it was fenced, and end."""
    road = Road(broker, clickhouse, tmp_path, transaction_timeout_seconds=120.0)
    with ExitStack() as stack:
        workers = both(road, stack)
        with road.traffic.flowing():
            road.traffic.reach(300)
            broker.restart()
            road.traffic.reach(300)
            goes_away(road, clickhouse, workers[1], 10)
            road.traffic.reach(300)
        road.holds()
        assert [worker.failures for worker in workers] == [[], []]
        for worker in workers:
            worker.drain()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_clickhouse_is_down_for_minutes(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    road = Road(broker, clickhouse, tmp_path)
    with ExitStack() as stack:
        workers = both(road, stack)
        with road.traffic.flowing():
            road.traffic.reach(300)
            goes_away(road, clickhouse, workers[1], 120)
        road.holds()
        assert [worker.failures for worker in workers] == [[], []]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_broker_crashes_again_and_again(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    road = Road(broker, clickhouse, tmp_path)
    inference, archiver = road.supervised()
    with inference, archiver:
        with road.traffic.flowing():
            for _ in range(3):
                road.traffic.reach(500, 120)
                broker.kill()
                pause(2)
                broker.start()
        road.holds()
        assert set(inference.failures) <= {"Fenced", "Unavailable"}


def goes_away(road: Road, clickhouse: ClickHouse, archiver: WorkerProcess, seconds: float) -> None:
    """Kill ClickHouse in the middle of inserts, and bring it back after a while in which decisions went on."""
    archiver.wait_for("BlockInserted", seconds=60)
    clickhouse.kill()
    try:
        archiver.wait_for("PlaceUnavailable", seconds=60)
        before = len(in_order(road.settings, PREDICTIONS))
        time.sleep(seconds)
        # Waited for: a client may need a while to find its way after a broker's restart, which is no matter of ClickHouse.
        wait_until(lambda: len(in_order(road.settings, PREDICTIONS)) > before + 50 * seconds, 60, "decisions without ClickHouse")
    finally:
        clickhouse.start()


def test_what_is_wrong_late_or_sent_twice_is_told_apart(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """Every kind of poison among one hundred requests each; and what is late costs no model run."""
    port = claim_base()
    # Patient: a transaction whose answer is not waited for is run again, and each of its rows with it.
    road = Road(broker, clickhouse, tmp_path, telemetry_port=port, commit_patience_seconds=30.0)
    with road.inference() as inference, road.archiver() as archiver:
        road.traffic.burst(100 * len(POISONS) + 100)
        road.holds()
        ran = model_rows(port)
        for worker in (inference, archiver):
            worker.drain()
    sent = road.traffic.sent
    found = Counter(next(reason for *_, reason in POISONS if reason in letter.reason) for letter in letters(road.settings))
    assert found == Counter(reason_of(number) for number in of_kinds(sent, Kind.POISON))
    assert set(found) == {reason for *_, reason in POISONS}
    assert len(in_order(road.settings, DEAD_LETTERS)) == len(range(POISON, road.traffic.next, 100))
    assert ran == sum(sent[number] for number in of_kinds(sent, Kind.ANSWERED))


def model_rows(port: int) -> float:
    """How many rows models have been run on, as the worker's metrics say; the warm-up is no run."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("millrace_model_records_sum{"))
