"""A log that ends with a transaction's marker: to stand before it is to stand before nothing, and nothing may be made of that later."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from millrace.infra.kafka import offsets
from millrace.infra.kafka.clients import admin, describe, full_name
from millrace.infra.kafka.offsets import Start
from millrace.infra.telemetry import Committed
from millrace.schemas.errors import OffsetsLost
from millrace.schemas.topics import ASSIGNMENTS, PREDICTIONS, REQUESTS
from tests.integration.harness import COUNTING, ECHO, Bench, InThread, Publisher, Rig, WorkerProcess, check, gather, settled
from tests.integration.harness.publish import assignment, pause, prediction, request
from tests.integration.harness.readback import outputs, positions, recomputed
from tests.stack import Broker, wait_until

BOTH = pytest.mark.parametrize("bench", [ECHO, COUNTING], ids=lambda bench: bench.name)
NEVER = 3_600.0


def transaction(rig: Rig, publisher: Publisher, first: int, count: int) -> None:
    """Publish numbers in a transaction of their own, whose marker is then the last that stands on each log."""
    producer = Producer({"bootstrap.servers": rig.settings.kafka.address, "transactional.id": f"test-{uuid.uuid4().hex}"})
    producer.init_transactions(20)
    producer.begin_transaction()
    for number in range(first, first + count):
        unit = publisher.unit(number)
        if rig.bench.stateless:
            publisher.send(REQUESTS.name, request(number, unit), producer)
        else:
            publisher.send(ASSIGNMENTS.name, assignment(number, unit), producer)
            publisher.send(PREDICTIONS.name, prediction(number, unit), producer)
    producer.commit_transaction(20)


def ends(rig: Rig) -> dict[tuple[str, int], int]:
    """Where the logs of the inputs end, by unprefixed topic."""
    infos = describe(rig.settings, [full_name(rig.settings, topic) for topic in rig.bench.inputs])
    places = [(name, number) for name, info in infos.items() for number in range(info.partitions)]
    found = offsets.positions(admin(rig.settings), places, Start.LATEST)
    return {(name.removeprefix(rig.settings.topic_prefix), number): end for (name, number), end in found.items()}


def expire(rig: Rig) -> None:
    """What retention does to logs on which nothing was written for long: nothing is left of them but where they end."""
    client = admin(rig.settings)
    everything = [TopicPartition(full_name(rig.settings, topic), number, end) for (topic, number), end in ends(rig).items()]
    for future in client.delete_records(everything).values():
        future.result()


@BOTH
def test_a_log_of_which_only_a_marker_was_left_expires_and_nothing_was_lost(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    rig = Rig.on(broker, tmp_path, bench, identity_check_seconds=0.2).provision()
    with Publisher(rig) as publisher:
        transaction(rig, publisher, 100_000, 40)
        with WorkerProcess(rig) as worker:
            settled(rig, worker)
            wait_until(lambda: positions(rig) == ends(rig), 20, "the group stands behind the markers")
            worker.kill()
        assert check(gather(rig, publisher)) == []
        before = len(outputs(rig))
        expire(rig)
        with InThread(rig):
            publisher.burst(30)
            wait_until(lambda: len(outputs(rig)) == before + len(recomputed(rig).answers), 30, "the answers to what came later")


@BOTH
def test_a_worker_that_is_asked_to_end_stands_behind_the_markers(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    rig = Rig.on(broker, tmp_path, bench, identity_check_seconds=NEVER).provision()
    with Publisher(rig) as publisher:
        with InThread(rig) as worker:
            publisher.burst(4)
            settled(rig)
            transaction(rig, publisher, 100_000, 40)
            publisher.aborted_burst(10)
            settled(rig)
            pause(1.0)  # no test can see what a worker has read that says nothing of it
            commits = len(worker.seen(Committed))
            pause(0.5)
            assert len(worker.seen(Committed)) == commits
        assert positions(rig) == ends(rig)
        assert check(gather(rig, publisher)) == []


def test_a_marker_is_passed_over_once_and_not_again_and_again(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO, identity_check_seconds=0.1).provision()
    with Publisher(rig) as publisher, InThread(rig) as worker:
        transaction(rig, publisher, 100_000, 10)
        settled(rig)
        wait_until(lambda: positions(rig) == ends(rig), 20, "the group stands behind the markers")
        pause(0.3)
        commits = len(worker.seen(Committed))
        pause(1.0)
        assert len(worker.seen(Committed)) == commits <= 4


def test_records_that_expired_behind_a_marker_before_they_were_read_stop_the_worker(broker: Broker, tmp_path: Path) -> None:
    """And the remedy that it names is one: it goes on with what is left, each record once."""
    rig = Rig.on(broker, tmp_path, ECHO, partitions=1, identity_check_seconds=0.2, session_timeout_seconds=1.0).provision()
    with Publisher(rig) as publisher:
        transaction(rig, publisher, 100_000, 20)
        with InThread(rig):
            settled(rig)
        transaction(rig, publisher, 200_000, 20)
        expire(rig)
        for _ in range(2):
            with InThread(rig) as worker:
                error = worker.error()
                assert isinstance(error, OffsetsLost)
                assert "is not in the log any more" in str(error)
                assert "`millrace offsets reset inference --to commits`" in str(error)
        offsets.reset(rig.settings, ECHO.role, [full_name(rig.settings, REQUESTS)], Start.COMMITS)
        publisher.burst(10)
        with InThread(rig):
            settled(rig)
        assert len(outputs(rig)) == 30
