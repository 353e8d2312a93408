"""What is on record is enough: every transaction runs again to the same bytes, and what did not come from one is found."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from msgspec.structs import replace

from millrace.infra.kafka.clients import admin, full_name, producer
from millrace.infra.kafka.control import Control
from millrace.infra.kafka.cursors import Cursors
from millrace.infra.kafka.scan import Scan
from millrace.infra.models import inspect
from millrace.infra.models.networks import perceptron
from millrace.infra.objects import Folder
from millrace.schemas.commit import Commit
from millrace.schemas.errors import UsageError
from millrace.schemas.experiment import Plan
from millrace.schemas.model import ModelVersion
from millrace.schemas.topics import ASSIGNMENTS, COMMITS, EXPERIMENTS, MODELS, OUTCOMES, PREDICTIONS, REQUESTS, Topic
from millrace.schemas.wire import codec
from millrace.workers.replay import Role, Window, replay
from millrace.workers.replay.known import Places
from tests.integration.harness import COUNTING, InThread, Publisher, Rig, WorkerProcess, settled
from tests.integration.harness.publish import pause, prediction
from tests.integration.harness.readback import commits, in_order, letters
from tests.integration.road import EXPERIMENT, Road
from tests.integration.road.traffic import MODEL
from tests.models import plan
from tests.stack import Broker, ClickHouse

COUNTER = Role(COUNTING.role, (OUTCOMES,), lambda settings, telemetry: (COUNTING.work(), Places()), stateful=True)


@pytest.fixture
def road(broker: Broker, tmp_path: Path) -> Road:
    """Topics of its own; ClickHouse has no part in this."""
    return Road(broker, ClickHouse(tmp_path), tmp_path, inference_session_seconds=3.0)


def replayed(road: Road, *options: str, fails: int = 0, **variables: str) -> dict[str, Any]:
    """What ``millrace replay inference`` reports."""
    command = (sys.executable, "-m", "millrace", "replay", "inference", *options, "--json")
    done = subprocess.run(command, env=road.rig.environment() | variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == fails, (done.stdout, done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def forged(rig: Rig, topic: Topic, event: Any, key: str) -> None:
    """Publish an event as if a worker had."""
    client, own = producer(rig.settings), codec(topic)
    headers: Any = own.headers(event.id)
    client.produce(full_name(rig.settings, topic), own.encode(event), key, headers=headers)
    assert client.flush(30) == 0


def dropped_below(rig: Rig, topic: Topic, offsets: dict[int, int]) -> None:
    """Let a log forget what stands below these offsets, as retention does."""
    name = full_name(rig.settings, topic)
    client = admin(rig.settings)
    for future in client.delete_records([TopicPartition(name, number, offset) for number, offset in offsets.items()]).values():
        future.result()


def decided(road: Road, requests: int) -> list[Commit]:
    """Have so many requests decided, and as many again in other transactions; the commits."""
    with road.inference() as worker:
        worker.wait_for("Assigned")
        for _ in range(5):
            road.traffic.burst(requests // 5)
            road.answered()
        worker.drain()
    return commits(road.settings)


def test_after_kills_and_changes_every_transaction_comes_to_the_same_bytes(road: Road) -> None:
    """Two slots, kills, a new version and plan under way, and every hundredth request is poison; and once beside all that."""
    chance = random.Random(1)
    with road.traffic.flowing():
        for point in ("after produce", "before commit", "after commit"):
            with road.inference(point, 5) as doomed:
                assert doomed.wait(60) == -9
        with road.inference() as first, road.inference(ordinal=1) as second:
            second.wait_for("Assigned", seconds=60)
            road.route(road.add_version(seed=7))
            Control[Plan](road.settings, EXPERIMENTS).append(EXPERIMENT, lambda number: replace(plan(EXPERIMENT), version=number))
            road.traffic.reach(300)
            for worker in chance.sample([first, second], 2):
                pause(chance.uniform(0.1, 0.5))
                worker.kill()
        with road.inference():
            road.traffic.reach(300)
            beside = replayed(road)
    with road.inference():
        road.answered()
    report, there = replayed(road), commits(road.settings)
    assert report["equal"], report
    assert beside["equal"], beside
    assert 10 < beside["transactions"] <= report["transactions"] == report["transactions_equal"] == len(there)
    assert report["gone"] == report["dropped"] == 0
    events = sum(
        len(found) for found in (in_order(road.settings, PREDICTIONS), in_order(road.settings, ASSIGNMENTS), letters(road.settings))
    )
    assert report["events"] == report["events_equal"] == events + len(there)
    assert letters(road.settings)
    assert {commit.slot for commit in there} == {"inference-0", "inference-1"}
    assert len({tuple(commit.control.items()) for commit in there}) > 2


def test_what_no_transaction_comes_to_is_found(road: Road) -> None:
    """A prediction by hand, a record that is the same but for a byte, and a transaction that never was."""
    there = decided(road, 500)
    assert replayed(road)["equal"]
    forged(road.rig, PREDICTIONS, prediction(1, "u1"), "u1")
    genuine = in_order(road.settings, PREDICTIONS)[3]
    client = producer(road.settings)
    changed = (genuine.value or b"")[:-2] + b"7}"
    client.produce(full_name(road.settings, PREDICTIONS), changed, genuine.key, genuine.partition, headers=dict(genuine.headers or ()))
    assert client.flush(30) == 0
    report = replayed(road, fails=1)
    assert report["transactions_equal"] == report["transactions"] == len(there)
    assert [found["what"] for found in report["first"]] == ["no transaction comes to this record"] * 2
    forged(road.rig, COMMITS, replace(there[0], id="forged", time=there[-1].time), "inference")
    report = replayed(road, fails=1)
    assert report["differences"] > 3
    assert report["transactions"] == report["transactions_equal"] + 1 == len(there) + 1
    assert any("is not there" in found["what"] for found in report["first"])
    assert "id is 'forged'" in str(report["first"])


def test_a_worker_that_answers_otherwise_is_found_by_field(road: Road) -> None:
    there = decided(road, 300)
    report = replayed(road, fails=1, MILLRACE_INFERENCE__FEATURES_RECORDED="hash")
    assert report["transactions"] == len(there) > report["transactions_equal"]
    assert len(report["first"]) == 20 < report["differences"]
    assert all("features_digest is" in found["what"] for found in report["first"])
    text = road.command("replay", "inference", fails=0)
    assert text.startswith(f"equal: {len(there)} of {len(there)} transactions")


def test_a_part_is_replayed_from_a_time_or_from_the_end(road: Road) -> None:
    there = decided(road, 500)
    forged(road.rig, PREDICTIONS, prediction(1, "u1"), "u1")
    for option, value, wanted in (("--last", "3", 3), ("--from", there[-1].time.isoformat(), 1)):
        report = replayed(road, option, value, fails=1)
        assert report["transactions"] == report["transactions_equal"] == wanted
        assert [found["what"] for found in report["first"]] == ["no transaction comes to this record"]
    for options in (("--last", "3", "--from", "2026-01-01T00:00:00Z"), ("--from", "2026-01-01"), ("--from", "noon")):
        assert "--from" in road.command("replay", "inference", *options, fails=2)
    assert "there is no role 'x'" in road.command("replay", "x", fails=2)


def test_what_was_lacking_then_is_lacking_again(road: Road) -> None:
    """A version whose object comes late, and is there when it is replayed; then one that served and is not there any more."""
    data = perceptron((2, 4, 1), 9)
    told = replace(inspect(data), name=MODEL, location=f"sha256:{hashlib.sha256(data).hexdigest()}")
    with road.inference() as worker:
        worker.wait_for("Assigned")
        with road.traffic.flowing():
            road.traffic.reach(100)
            Control[ModelVersion](road.settings, MODELS).append(MODEL, lambda n: replace(told, version=n, time=datetime.now(UTC)))
            road.settings.objects_folder.mkdir(parents=True, exist_ok=True)
            road.route(2)
            worker.wait_for("ModelMissing")
            road.traffic.reach(100)
            Folder(road.settings.objects_folder).put(data)
            worker.wait_for("ModelUnloaded")
            road.traffic.reach(100)
        road.answered()
        worker.drain()
    there = commits(road.settings)
    assert {bool(commit.lacking) for commit in there if commit.control["routes"] == there[-1].control["routes"]} == {True, False}
    report = replayed(road)
    assert report["equal"], report
    assert report["transactions"] == report["transactions_equal"] == len(there)
    shutil.rmtree(road.settings.objects_folder)
    road.settings.objects_folder.mkdir()
    assert "version 2 cannot be fetched" in road.command("replay", "inference", fails=3)


def test_what_retention_dropped_is_said_and_skipped(road: Road) -> None:
    """Of the requests, and of what was answered."""
    there = decided(road, 500)
    half = {taken.partition: taken.end for commit in there[: len(there) // 2] for taken in commit.inputs}
    dropped_below(road.rig, REQUESTS, half)
    report = replayed(road)
    assert report["gone"] == len(there) // 2
    assert report["transactions"] == report["transactions_equal"] == len(there) - len(there) // 2
    assert "does not hold" in report["why_gone"]
    last = {record.partition: record.offset for record in in_order(road.settings, PREDICTIONS)}
    dropped_below(road.rig, PREDICTIONS, last)
    report = replayed(road)
    assert report["dropped"] > 0
    assert report["events_equal"] + report["dropped"] == report["events"]


def test_a_role_with_state_is_replayed_from_its_first_transaction(broker: Broker, tmp_path: Path) -> None:
    """State is built anew; timers are given the watermarks that they were given; then a wrong event, and a beginning that is gone."""
    rig = Rig.on(broker, tmp_path, COUNTING).provision()
    with Publisher(rig) as publisher:
        publisher.keep_on(200)
        for point in ("after produce", "after commit"):
            with WorkerProcess(rig, point, 4) as doomed:
                assert doomed.wait(60) == -9
        publisher.stop()
        with InThread(rig):
            for _ in range(5):
                publisher.burst(20)
                settled(rig)
    report = replay(rig.settings, COUNTER)
    assert report.equal, report
    assert report.transactions == report.transactions_equal == len(commits(rig.settings)) > 8
    assert report.events == report.events_equal == len(in_order(rig.settings, OUTCOMES)) + report.transactions > 100
    forged(rig, OUTCOMES, codec(OUTCOMES).decode(in_order(rig.settings, OUTCOMES)[0].value), "u1")
    assert replay(rig.settings, COUNTER).differences == 1
    with pytest.raises(UsageError, match="keeps state"):
        replay(rig.settings, COUNTER, Window(last=1))
    dropped_below(rig, ASSIGNMENTS, {0: 1})
    with pytest.raises(UsageError, match="that is gone"):
        replay(rig.settings, COUNTER)


def test_what_is_pending_lies_within_what_is_looked_at(broker: Broker, tmp_path: Path) -> None:
    """A transaction's end stands on its logs one after another: on that of its events, say, a moment before it stands on ``commits``."""
    rig = Rig.on(broker, tmp_path, COUNTING).provision()
    place = (full_name(rig.settings, COMMITS), 0)
    client = Producer({"bootstrap.servers": broker.address, "transactional.id": f"{place[0]}-pending"})
    client.init_transactions(60)
    client.begin_transaction()
    client.produce(place[0], b"{}", partition=0)
    client.flush(60)
    scan, cursors = Scan(rig.settings), Cursors(rig.settings, {place[0]: COMMITS.name})
    try:
        assert scan.ends([place])[place] == 0
        assert cursors.extent(place) == (0, 1)
    finally:
        scan.close()
        cursors.close()
        client.abort_transaction(60)
