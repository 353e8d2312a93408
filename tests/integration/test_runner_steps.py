"""What a step may do to its runner: raise, ask for patience, state what no topic takes; and what the runner tells of itself."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from msgspec import Raw

from millrace.infra.telemetry import Committed, ControlIgnored, Held, Polled, Released
from millrace.schemas.errors import Stop
from millrace.schemas.experiment import Plan, State, Variant
from millrace.schemas.request import Request
from millrace.schemas.topics import EXPERIMENTS
from tests.integration.harness import COUNTING, ECHO, Bench, InThread, Publisher, Rig, WorkerProcess, check, gather, settled
from tests.integration.harness.publish import CODECS, TIME, prediction, request
from tests.integration.harness.readback import changelog_state, commits, outputs, positions
from tests.stack import Broker, claim_base, wait_until

BOTH = pytest.mark.parametrize("bench", [ECHO, COUNTING], ids=lambda bench: bench.name)


def plan(publisher: Publisher, name: str, version: int) -> None:
    event = Plan(name=name, version=version, state=State.RUNNING, time=TIME, salt="s", variants=(Variant(name="a"),))
    publisher.raw(EXPERIMENTS.name, name.encode(), CODECS[EXPERIMENTS.name].encode(event), 0)
    publisher.flush()


@BOTH
def test_a_step_that_raises_stops_the_process_each_time_and_nothing_is_committed(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    rig = Rig.on(broker, tmp_path, bench).provision()
    with Publisher(rig) as publisher:
        publisher.burst(60)
        with WorkerProcess(rig) as worker:
            settled(rig, worker)
            worker.drain()
        before = (outputs(rig), positions(rig), changelog_state(rig.settings, bench.role) if not bench.stateless else {})
        if bench.stateless:
            publisher.send("requests", request(900, "u1", do="raise"))
        else:
            publisher.send("predictions", prediction(900, "u1", error="raise"))
        publisher.burst(1)
        for _ in range(2):
            with WorkerProcess(rig) as worker:
                assert worker.wait() == 1
                failed = worker.wait_for("Failed")
                assert (failed["error"], failed["reason"].endswith("says so")) == ("ValueError", True)
                assert "Traceback" in failed["traceback"]
        poisoned = publisher.partition("u1")
        assert [answer for answer in outputs(rig) if publisher.partition(answer.key) == poisoned] == [
            answer for answer in before[0] if publisher.partition(answer.key) == poisoned
        ]
        assert all(offset == before[1][place] for place, offset in positions(rig).items() if place[1] == poisoned)


def test_not_now_holds_and_goes_on_in_order(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO).provision()
    with Publisher(rig) as publisher, InThread(rig) as worker:
        publisher.burst(50)
        for number in range(5):
            publisher.send("requests", request(9_000 + number, publisher.unit(number), needs="e"))
        publisher.burst(50)
        worker.wait_for(Held)
        wait_until(lambda: "not-now" in str(worker.telemetry.health.reason), 60, "not ready")
        publisher.burst(50)
        worker.wait_for(Held, 3)
        worker.wait_for(Released, 2)  # it tries again by itself
        assert len(outputs(rig)) <= 100
        plan(publisher, "e", 1)
        settled(rig)
        wait_until(lambda: worker.telemetry.health.reason is None, 60, "ready again")
    assert check(gather(rig, publisher)) == []


def test_a_control_record_that_lost_its_race_is_ignored_and_told(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO).provision()
    with Publisher(rig) as publisher:
        for version in (1, 1, 3, 2):
            plan(publisher, "e", version)
        publisher.raw(EXPERIMENTS.name, b"e", b"{", 0)
        publisher.flush()
        with InThread(rig) as worker:
            worker.wait_for(ControlIgnored, 3)
            plan(publisher, "e", 2)
            worker.wait_for(ControlIgnored, 4)
            publisher.burst(10)
            settled(rig)
            assert [event.offset for event in worker.seen(ControlIgnored)] == [1, 2, 4, 5]
    assert commits(rig.settings)[0].control == {"allowances": 0, "experiments": 6}


def test_an_event_that_its_topic_does_not_take_stops_the_worker(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO).provision()
    with Publisher(rig) as publisher:
        publisher.send("requests", request(1, "u1", do="oversized"))
        publisher.flush()
        for _ in range(2):
            with InThread(rig) as worker:
                error = worker.error()
                assert isinstance(error, Stop)
                assert "MSG_SIZE_TOO_LARGE" in str(error)
    assert outputs(rig) == []
    assert set(positions(rig).values()) == {0}


def test_the_largest_records_come_through(broker: Broker, tmp_path: Path) -> None:
    """Requests near the topic's limit, beside a fetch queue that holds no two of them."""
    rig = Rig.on(broker, tmp_path, ECHO, fetch_queue_bytes=1 << 20).provision()
    with Publisher(rig) as publisher, InThread(rig):
        for number in range(8):
            vector = Raw(b"[" + b"0.123456789," * 80_000 + b"0]")
            publisher.send("requests", Request(id=f"big{number}", unit_id=publisher.unit(number), model="m", vector=vector))
        publisher.burst(20)
        settled(rig)
    assert check(gather(rig, publisher)) == []
    assert len(outputs(rig)) == 28


@BOTH
def test_metrics_health_and_status_are_served(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    port = claim_base() + 3
    rig = Rig.on(broker, tmp_path, bench).provision().at(telemetry={"port": port})

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    with Publisher(rig) as publisher, InThread(rig) as worker:
        publisher.burst(100)
        settled(rig)
        worker.wait_for(Polled)
        worker.wait_for(Committed)  # told in the turn after the one that everybody sees
        wait_until(lambda: get("/health/ready") == (200, "ready"), 60, "ready")
        assert get("/health/live")[0] == 200
        wait_until(lambda: "millrace_lag_records{" in get("/metrics")[1], 60, "a lag")
        wanted = {"worker": bench.role, "ready": True, "lag": 0}
        wait_until(lambda: wanted.items() <= json.loads(get("/status")[1]).items(), 60, f"a status with {wanted}")
        metrics = get("/metrics")[1]
    read = sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("millrace_records_in_total{"))
    assert read >= 100
    for name in (
        "events_out_total",
        "commit_seconds_count",
        "stage_seconds_count",
        "poll_records_count",
        "lag_records",
        "transactions_total",
    ):
        assert f"\nmillrace_{name}{{" in metrics, name
