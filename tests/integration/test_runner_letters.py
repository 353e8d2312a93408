"""Poison: dead-lettered as it came, in the same transaction, up to a cap that a restart does not reset and a person may lift."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer

from millrace.infra.kafka.clients import full_name
from millrace.infra.telemetry import AllowanceTaken, DeadLettered, Held, Released
from millrace.schemas.dead_letter import Allowance
from millrace.schemas.topics import ALLOWANCES, DEAD_LETTERS, PREDICTIONS, REQUESTS
from millrace.schemas.wire import codec
from tests.integration.harness import COUNTING, ECHO, InThread, Publisher, Rig, check, gather, settled
from tests.integration.harness.publish import CODECS, TIME, prediction, request
from tests.integration.harness.readback import in_order, letters, outputs, positions
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
                wait_until(lambda: "held: dead-letters" in str(worker.telemetry.health.reason), 60, "not ready")
            assert (len(letters(rig.settings)), positions(rig)) == (10, {("requests", 0): 10})
        with InThread(rig) as worker:
            worker.wait_for(Held)
            allow(publisher, 1, 0, 29, worker="somebody-else")
            allow(publisher, 2, 0, 29)
            worker.wait_for(Released)
            assert worker.wait_for(AllowanceTaken).through == 29
            worker.wait_for(Held, 2)
            held = {("requests", 0): 40}
            wait_until(lambda: positions(rig) == held and len(letters(rig.settings)) == 40, 60, "held again, ten further")
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


def large(rig: Rig, sent: Sequence[tuple[bytes, list[tuple[str, bytes]]]]) -> None:
    """Publish records that are larger than their topic's limit before they are compressed, which is when brokers measure."""
    client = Producer({"bootstrap.servers": rig.settings.kafka.address, "message.max.bytes": 16 << 20, "compression.type": "gzip"})
    for value, headers in sent:
        client.produce(full_name(rig.settings, REQUESTS), value, b"u1", 0, headers=list(headers))
        assert client.flush(60) == 0


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"{}", [("content-type", b"\x01" * 1_000_000)]),
        (b"{}", [("content-type", b"\xff" * 1_000_000)]),
        (b"{", [("\x01" * 900_000, b"")]),
        (b"x" * 5_000_000, [("trace", b"1")]),
        (b"{", [("h", b"y" * 100)] * 40_000),
    ],
    ids=["content-type-escaped", "content-type-no-text", "header-name", "value", "headers"],
)
def test_a_letter_that_dead_letters_does_not_take_is_shortened_and_says_so(
    broker: Broker, tmp_path: Path, value: bytes, headers: list[tuple[str, bytes]]
) -> None:
    rig = Rig.on(broker, tmp_path, ECHO, partitions=1).provision()
    with Publisher(rig) as publisher, InThread(rig):
        publisher.burst(3)
        large(rig, [(value, headers)])
        publisher.burst(3)
        settled(rig)
    assert check(gather(rig, publisher)) == []
    (letter,) = letters(rig.settings)
    assert (letter.offset, letter.key, value.startswith(letter.value or b"?")) == (3, b"u1", True)
    assert len(codec(DEAD_LETTERS).encode(letter)) < DEAD_LETTERS.record_bytes
    if letter.value != value:
        assert f"first {len(letter.value or b'')} of {len(value)} bytes of its value are kept" in letter.reason
        assert hashlib.sha256(value).hexdigest() in letter.reason
    whole = letter.headers == tuple(headers)
    assert whole == ("of its headers are kept" not in letter.reason)
    assert len(letter.reason) < 1_000


def test_good_requests_carry_on_no_more_of_their_headers_than_a_trace_needs(broker: Broker, tmp_path: Path) -> None:
    """What a producer puts there may not decide how large our own records are: two answers' worth of it would not fit."""
    rig = Rig.on(broker, tmp_path, ECHO, partitions=1).provision()
    trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with Publisher(rig) as publisher, InThread(rig):
        good = [CODECS[REQUESTS.name].encode(request(number, "u1")) for number in range(3)]
        long = ("traceparent", b"t" * 5_000_000)
        large(rig, [(good[0], [long]), (good[1], [trace] * 40_000), (good[2], [("other", b"z" * 5_000_000), trace])])
        settled(rig)
    assert check(gather(rig, publisher)) == []
    answers = in_order(rig.settings, PREDICTIONS)
    carried = [[header for header in answer.headers or () if header[0] == "traceparent"] for answer in answers]
    assert carried == [[], [trace], [trace]]
