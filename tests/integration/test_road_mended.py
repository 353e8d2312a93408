"""What a person has to mend, on the whole road: the worker stops or holds and names the command; run for real, all goes on exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.infra.kafka.clients import admin, full_name, group_name
from millrace.infra.kafka.provision import Wanted, provision
from millrace.schemas.topics import REQUESTS, TOPICS
from tests.integration.harness import WorkerProcess, delete_topic
from tests.integration.harness.publish import pause
from tests.integration.harness.readback import letters
from tests.integration.road import PARTITIONS, Kind, Road, of_kinds
from tests.stack import Broker, ClickHouse, wait_until

SESSION_SECONDS = 1.0
CAP = 10

pytestmark = pytest.mark.timeout(900)


def ends_as(worker: WorkerProcess, *errors: str) -> str:
    """Wait until a worker ends by itself with one of these errors; the reason that it gives."""
    assert worker.wait(60) == 1
    failed = worker.wait_for("Failed")
    assert failed["error"] in errors, failed
    return str(failed["reason"])


def lose_offsets(road: Road, role: str) -> None:
    """What offset expiry does; the group is empty once its last static member's session has ended."""
    client, group = admin(road.settings), group_name(road.settings, role)

    def deleted() -> bool:
        (future,) = client.delete_consumer_groups([group]).values()
        return future.exception() is None

    wait_until(deleted, 60, f"group {group} deleted")


def make_anew(road: Road) -> None:
    """Delete ``requests`` and make it again, as a tool that knows nothing of groups would."""
    delete_topic(road.settings, full_name(road.settings, REQUESTS))
    wait_until(lambda: bool(provision(road.settings, Wanted(topics=TOPICS, readers={}))), 60, "the topic made again")
    road.traffic.renew(road.settings)


def test_lost_offsets_stop_inference_until_the_command_that_it_names_is_run(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    road = Road(broker, clickhouse, tmp_path, inference_session_seconds=SESSION_SECONDS)
    with road.archiver() as archiver:
        with road.traffic.flowing():
            with road.inference() as inference:
                road.consumed(200)
                inference.drain()
            lose_offsets(road, "inference")
            before = road.ends()
            with road.inference() as inference:
                assert "`millrace offsets reset inference --to commits`" in ends_as(inference, "OffsetsLost")
            after = road.ends()
            assert {name for name, _ in before if any(before[place] != after[place] for place in before if place[0] == name)} <= {
                full_name(road.settings, REQUESTS)
            }
            road.command("offsets", "reset", "inference", "--to", "commits")
        with road.inference():
            road.traffic.burst(100)
            road.holds()
        assert archiver.failures == []


@pytest.mark.slow
def test_nothing_but_poison_is_held_within_the_cap_until_it_is_allowed(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """Also across a kill after a commit, a kill before one, and an orderly restart."""
    road = Road(broker, clickhouse, tmp_path, dead_letter_run=CAP, poll_records=7)
    road.traffic.poison(80)
    with road.archiver():
        for point in ("after commit", "before commit"):
            with road.inference(point, 1) as doomed:
                assert doomed.wait() == -9
        with road.inference() as inference:
            held_at_cap(road, inference)
            inference.drain()
        road.traffic.burst(100)
        with road.inference() as inference:
            held_at_cap(road, inference)
            road.command("dead-letters", "allow", "inference")
            road.answered()
            road.traffic.burst(100)
            road.holds()
            assert len(letters(road.settings)) == len(of_kinds(road.traffic.sent, Kind.POISON)) > 80
            inference.drain()


def held_at_cap(road: Road, inference: WorkerProcess) -> None:
    """Both partitions are held with as many dead letters as the cap lets pass, and no more come; the worker names the command."""
    command = "`millrace dead-letters allow inference`"
    wait_until(lambda: any(command in held["reason"] for held in inference.events("Held")), 60, f"held, naming {command}")
    wait_until(lambda: len(letters(road.settings)) == CAP * PARTITIONS, 60, "each partition at its cap")
    pause(0.3)
    assert len(letters(road.settings)) == CAP * PARTITIONS


@pytest.mark.slow
def test_a_topic_made_anew_stops_both_workers_until_the_commands_that_they_name_are_run(
    broker: Broker, clickhouse: ClickHouse, tmp_path: Path
) -> None:
    """While they run, and while they are stopped. What was answered before stays as it was."""
    road = Road(
        broker,
        clickhouse,
        tmp_path,
        inference_session_seconds=SESSION_SECONDS,
        archiver_session_seconds=SESSION_SECONDS,
        identity_check_seconds=0.2,
    )
    road.traffic.burst(200)
    with road.inference() as inference, road.archiver() as archiver:
        road.holds()
        make_anew(road)
        for role, worker in (("inference", inference), ("archiver", archiver)):
            assert f"`millrace offsets reset {role} --to earliest`" in ends_as(worker, "OffsetsLost", "TopicRecreated")
    goes_on(road)
    make_anew(road)
    with road.inference() as inference, road.archiver() as archiver:
        for role, worker in (("inference", inference), ("archiver", archiver)):
            assert f"`millrace offsets reset {role} --to earliest`" in ends_as(worker, "OffsetsLost", "TopicRecreated")
    assert "use --to earliest" in road.command("offsets", "reset", "inference", "--to", "commits", fails=2)
    goes_on(road)


def goes_on(road: Road) -> None:
    """Run the commands; what is on the topic now comes to what it must, beside what was answered before."""
    for role in ("inference", "archiver"):
        road.command("offsets", "reset", role, "--to", "earliest")
    road.traffic.burst(200)
    with road.inference() as inference, road.archiver() as archiver:
        road.holds()
        for worker in (inference, archiver):
            worker.drain()
