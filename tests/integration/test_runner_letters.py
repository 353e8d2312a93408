"""Poison: dead-lettered as it came, in the same transaction, up to a cap that a restart does not reset and a person may lift."""

from __future__ import annotations

from pathlib import Path

from millrace.infra.telemetry import AllowanceTaken, DeadLettered, Held, Released
from millrace.schemas.dead_letter import Allowance
from millrace.schemas.topics import ALLOWANCES
from tests.integration.harness import COUNTING, ECHO, InThread, Publisher, Rig, check, gather, settled
from tests.integration.harness.publish import CODECS, TIME, prediction, request
from tests.integration.harness.readback import letters, outputs, positions
from tests.stack import Broker, wait_until

POISON = b'{"id": 7, "unit_id": \xff'
HEADERS = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("empty", b""), ("raw", b"\x00\xff")]


def allow(publisher: Publisher, version: int, partition: int, through: int, worker: str = "inference") -> None:
    word = Allowance(version=version, time=TIME, worker=worker, topic="requests", partition=partition, through=through)
    publisher.raw(ALLOWANCES.name, worker.encode(), CODECS[ALLOWANCES.name].encode(word), 0)
    publisher.flush()


def test_one_in_a_hundred_is_dead_lettered_as_it_came(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO).provision()
    with Publisher(rig) as publisher, InThread(rig) as worker:
        for number in range(20):
            publisher.burst(49)
            publisher.raw("requests", b"\x00key%d" % number, POISON, number % 2, HEADERS)
            publisher.send("requests", request(10_000 + number, "u1", do="refuse"))
        publisher.raw("requests", None, None, 0)
        publisher.flush()
        settled(rig)
        found = letters(rig.settings)
        worker.wait_for(DeadLettered)
    assert check(gather(rig, publisher)) == []
    poison = [letter for letter in found if letter.value == POISON]
    assert sorted(letter.key or b"" for letter in poison) == sorted(b"\x00key%d" % number for number in range(20))
    assert {letter.headers for letter in poison} == {tuple(HEADERS)}
    assert {letter.worker for letter in found} == {"inference"}
    refused = [letter for letter in found if letter.reason == "$.context.do: it says so"]
    assert len(refused) == 20
    (tombstone,) = [letter for letter in found if letter.value is None]
    assert "a tombstone means nothing on this topic" in tombstone.reason


def test_nothing_but_poison_is_held_at_the_cap_across_restarts_until_it_is_allowed(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO, partitions=1, dead_letter_run=10, poll_records=7).provision()
    with Publisher(rig) as publisher:
        for _ in range(50):
            publisher.raw("requests", b"k", POISON, 0)
        publisher.burst(5)
        for _ in range(2):
            with InThread(rig) as worker:
                assert worker.wait_for(Held).why == "dead-letters"
                wait_until(lambda: len(letters(rig.settings)) == 10, 60, "ten dead letters")
                assert "held: dead-letters" in str(worker.telemetry.health.reason)
            assert (len(letters(rig.settings)), positions(rig)) == (10, {("requests", 0): 10})
        with InThread(rig) as worker:
            worker.wait_for(Held)
            allow(publisher, 1, 0, 29, worker="somebody-else")
            allow(publisher, 2, 0, 29)
            worker.wait_for(Released)
            assert worker.wait_for(AllowanceTaken).through == 29
            worker.wait_for(Held, 2)
            wait_until(lambda: positions(rig) == {("requests", 0): 40}, 60, "held again, ten further")
            assert len(letters(rig.settings)) == 40
            allow(publisher, 3, 0, 49)
            settled(rig)
            wait_until(lambda: worker.telemetry.health.reason is None, 60, "ready again")
        assert check(gather(rig, publisher)) == []
        assert len(outputs(rig)) == 5


def test_one_poisoned_partition_does_not_hold_another(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO, partitions=2, dead_letter_run=3).provision()
    with Publisher(rig) as publisher, InThread(rig) as worker:
        for _ in range(20):
            publisher.raw("requests", b"k", POISON, 0)
        publisher.flush()
        worker.wait_for(Held)
        units = [unit for unit in map(publisher.unit, range(17)) if publisher.partition(unit) == 1]
        for number in range(50):
            publisher.send("requests", request(number, units[0]))
        publisher.flush()
        wait_until(lambda: len(outputs(rig)) == 50, 60, "the other partition's answers")
        assert positions(rig) == {("requests", 0): 3, ("requests", 1): 50}


def test_a_join_dead_letters_what_its_step_refuses(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, COUNTING, dead_letter_run=5).provision()
    with Publisher(rig) as publisher, InThread(rig) as worker:
        publisher.burst(100)
        for number in range(3):
            publisher.send("predictions", prediction(5_000 + number, "u1", error="refuse"))
        publisher.burst(100)
        settled(rig)
        assert not worker.seen(Held)
    assert check(gather(rig, publisher)) == []
    assert len(letters(rig.settings)) == 3
