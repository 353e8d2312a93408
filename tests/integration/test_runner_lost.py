"""A worker whose session is over: its partitions are lost, its transaction is aborted unless its commit was sent, and it begins anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from millrace.infra.kafka.inputs import Inputs, Poll
from millrace.infra.kafka.positions import Place
from millrace.infra.telemetry import Assigned, Revoked, TransactionAborted
from tests.integration.harness import COUNTING, ECHO, Bench, InThread, Publisher, Rig, WorkerProcess, check, gather, settled
from tests.integration.harness.publish import pause
from tests.integration.harness.readback import commits, local_state, recomputed
from tests.stack import Broker, wait_until

SESSION_SECONDS = 2.0
BENCHES = pytest.mark.parametrize("bench", [ECHO, COUNTING], ids=lambda bench: bench.name)


class Between:
    """Keeps the first commit at a point until its fate is decided, and the worker polling beside it until then."""

    def __init__(self, point: str) -> None:
        self._point, self.reached, self.decided = point, threading.Event(), threading.Event()
        self.passed: list[str] = []
        self._poll: Callable[[int, float, float], Poll] | None = None

    def __call__(self, point: str) -> None:
        self.passed.append(point)
        if point in ("forsaken", "too late to forsake"):
            self.decided.set()
        elif point == self._point and not self.reached.is_set():
            self.reached.set()
            if not self.decided.wait(120):
                raise AssertionError("the partitions were not lost")

    def watch(self, inputs: Inputs) -> None:
        """From the first commit on a poll ends only when its fate is decided: a turn would wait for the commit, and poll no more."""
        self._poll = inputs.poll
        inputs.poll = self._wait  # type: ignore[method-assign]

    def _wait(self, records: int, idle_seconds: float, gather_seconds: float) -> Poll:
        if self._poll is None:
            raise AssertionError("nothing is watched")
        ends: dict[Place, int] = {}
        while True:
            found = self._poll(records, idle_seconds, gather_seconds)
            ends |= found.ends
            if found.records or self.decided.is_set() or "before produce" not in self.passed:
                return Poll(found.records, ends)


@pytest.mark.parametrize(("bench", "point"), [(ECHO, "before offsets"), (COUNTING, "before commit")], ids=["echo", "counting"])
def test_what_was_not_sent_when_partitions_are_lost_is_aborted(broker: Broker, tmp_path: Path, bench: Bench, point: str) -> None:
    """Kafka is silent for longer than a session while a poll waits and a commit is about to be sent."""
    rig = Rig.on(broker, tmp_path, bench, session_timeout_seconds=SESSION_SECONDS).provision()
    between = Between(point)
    with Publisher(rig) as publisher, InThread(rig, between) as worker:
        between.watch(worker.runner._inputs)
        worker.wait_for(Assigned)
        publisher.burst(1)
        assert between.reached.wait(60)
        broker.pause()
        try:
            assert between.decided.wait(60), "the session is over"
        finally:
            broker.resume()
        assert worker.wait_for(Revoked).lost
        assert "forsaken" in between.passed
        assert "after commit" not in between.passed[: between.passed.index("forsaken") + 1]
        assert "lost" in worker.wait_for(TransactionAborted).reason
        worker.wait_for(Assigned, 2)
        publisher.burst(30)
        settled(rig)
    assert check(gather(rig, publisher)) == []


@BENCHES
@pytest.mark.parametrize("point", ["before commit", "after commit"])
def test_a_worker_frozen_for_longer_than_its_session_goes_on(broker: Broker, tmp_path: Path, bench: Bench, point: str) -> None:
    """Nobody took its slot meanwhile: whatever became of its commit, it joins anew and reads on from there."""
    rig = Rig.on(broker, tmp_path, bench, session_timeout_seconds=SESSION_SECONDS).provision()
    with Publisher(rig) as publisher, WorkerProcess(rig, point, 5, "stop") as worker:
        publisher.keep_on(300)
        wait_until(lambda: worker.frozen, 60, f"frozen at {point}")
        pause(SESSION_SECONDS + 1.5)
        worker.thaw()
        wait_until(lambda: any(line["lost"] for line in worker.events("Revoked")), 60, "partitions are lost")
        worker.wait_for("Assigned", 2)
        publisher.stop()
        settled(rig, worker)
        worker.drain()
        assert worker.failures == []
    assert check(gather(rig, publisher)) == []
    assert {commit.slot for commit in commits(rig.settings)} == {f"{bench.role}-0"}
    if not bench.stateless:
        assert local_state(rig) == recomputed(rig).state
