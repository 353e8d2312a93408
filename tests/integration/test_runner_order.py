"""Joined topics are read in the order of their append times: timers, watermarks, back-pressure, and a backlog read as live traffic."""

from __future__ import annotations

import shutil
import time
import uuid
from dataclasses import replace
from pathlib import Path

from confluent_kafka import Producer

from millrace.infra.kafka import offsets
from millrace.infra.kafka.clients import full_name
from millrace.infra.kafka.offsets import Start
from millrace.infra.telemetry import Assigned
from tests import counting
from tests.integration.harness import (
    COUNTING,
    Answer,
    InThread,
    Publisher,
    Rig,
    WorkerProcess,
    check,
    delete_topic,
    gather,
    outputs,
    settled,
)
from tests.integration.harness.publish import assignment, pause, prediction
from tests.stack import Broker, wait_until


def of(answers: list[Answer], key: str) -> list[Answer]:
    return [answer for answer in answers if answer.key == key]


def test_a_backlog_gives_the_same_as_live_traffic(broker: Broker, tmp_path: Path) -> None:
    """The same records, once as they came over some seconds and once all at once: the same answers, in the same order per unit."""
    rig = Rig.on(broker, tmp_path, COUNTING, session_timeout_seconds=1.0).provision()
    settings = rig.settings
    with Publisher(rig) as publisher:
        with WorkerProcess(rig) as worker:
            worker.wait_for("Assigned")
            publisher.keep_on(300)
            pause(2.5)
            publisher.stop()
            settled(rig, worker)
            worker.drain()
        assert check(gather(rig, publisher)) == []
        live = outputs(rig)
        shutil.rmtree(settings.stack.folder / "state")
        delete_topic(settings, full_name(settings, "counter-changelog"))
        rig.provision()
        offsets.reset(settings, "counter", [full_name(settings, topic) for topic in COUNTING.inputs], Start.EARLIEST)
        with WorkerProcess(rig) as worker:
            wait_until(lambda: len(outputs(rig)) >= 2 * len(live), 60, "the backlog's answers")
            worker.drain()
    both = outputs(rig)
    assert len(both) == 2 * len(live)
    for key in {answer.key for answer in live}:
        assert of(both, key) == of(live, key) * 2


def test_timers_fire_while_an_input_is_idle_and_another_group_is_busy(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, COUNTING, partitions=2).provision()
    with Publisher(rig) as publisher, InThread(rig) as worker:
        worker.wait_for(Assigned)
        idle = next(unit for unit in map("idle{}".format, range(50)) if publisher.partition(unit) == 0)
        busy = next(unit for unit in map("busy{}".format, range(50)) if publisher.partition(unit) == 1)
        publisher.send("assignments", assignment(1_000_000, idle))
        number, deadline = 0, time.monotonic() + 60
        while number % 20 or not of(outputs(rig), idle):
            assert time.monotonic() < deadline, "no timeout while the other group was busy"
            publisher.send("assignments", assignment(number, busy))
            publisher.send("predictions", prediction(number, busy))
            publisher.flush()
            pause(0.01)
            number += 1
        assert [answer.count for answer in of(outputs(rig), idle)] == [None], "the timeout came while the other group was busy"
        settled(rig)
    assert check(gather(rig, publisher)) == []


def test_an_input_that_stalls_holds_the_other_within_a_limit(broker: Broker, tmp_path: Path) -> None:
    """An open transaction on one input: nobody knows whether its records come first, so the other waits, and memory stays bounded."""
    patient = replace(COUNTING, make=lambda: counting.CountingJoin(600_000))  # nothing times out, however slow the machine is
    rig = Rig.on(broker, tmp_path, patient, partitions=1, held_aside_records=200, poll_records=50).provision()
    stalled = Producer(
        {
            "bootstrap.servers": rig.settings.kafka.address,
            "transactional.id": f"test-{uuid.uuid4().hex}",
            "transaction.timeout.ms": 120_000,
        }
    )
    stalled.init_transactions(60)
    with Publisher(rig) as publisher, InThread(rig) as worker:
        stalled.begin_transaction()
        for number in range(1_000):
            publisher.send("predictions", prediction(number, "u"), stalled)
        stalled.flush(60)
        for number in range(1_000):
            publisher.send("assignments", assignment(number, "u"))
        publisher.flush()
        held = worker.runner._owned.groups
        wait_until(lambda: bool(held) and len(held[0].merge or ()) >= 200, 60, "records held aside")
        pause(0.5)
        assert len(held[0].merge or ()) <= 250
        assert outputs(rig) == []
        stalled.commit_transaction(60)
        settled(rig)
    assert check(gather(rig, publisher)) == []
    assert sum(answer.count is not None for answer in outputs(rig)) == 1_000
