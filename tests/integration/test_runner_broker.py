"""A broker that restarts, crashes or freezes under a loaded worker: the worker goes on by itself and answers everything once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.infra.kafka.clients import describe, full_name
from millrace.schemas.errors import Unavailable
from tests.integration.harness import COUNTING, ECHO, Bench, Publisher, Rig, Supervised, check, gather, settled
from tests.integration.harness.publish import pause
from tests.stack import Broker, wait_until

BOTH = pytest.mark.parametrize("bench", [ECHO, COUNTING], ids=lambda bench: bench.name)
COMMIT = "before commit"
OUTLIVES = {"session_timeout_seconds": 60.0, "transaction_timeout_seconds": 120.0}
"""What no trouble of seconds runs out, however long it becomes on a slow machine."""

Trouble = Callable[[Broker, Supervised], None]


def restarted(broker: Broker, worker: Supervised) -> None:
    broker.restart()


def crashed(broker: Broker, worker: Supervised) -> None:
    broker.kill()
    broker.start()


def frozen(seconds: float) -> Trouble:
    """Longer than a commit's patience: what became of it is then unknown. The worker stands right before a commit until it begins."""

    def freeze(broker: Broker, worker: Supervised) -> None:
        wait_until(lambda: worker.worker.frozen, 60, "the worker is about to commit")
        broker.pause()
        try:
            worker.worker.thaw()
            wait_until(lambda: bool(unanswered(worker)), 20, "a commit waits for its answer")
            pause(seconds)
        finally:
            broker.resume()

    return freeze


def unanswered(worker: Supervised) -> list[dict[str, Any]]:
    """What the worker said of commits without an answer."""
    return [event for event in worker.events("ReadinessChanged") if "a commit is under way" in event["reason"]]


def answers(rig: Rig) -> bool:
    """Whether the broker has found its controller again."""
    try:
        return bool(describe(rig.settings, [full_name(rig.settings, topic) for topic in rig.bench.inputs]))
    except Unavailable:
        return False


def goes_on(broker: Broker, folder: Path, bench: Bench, trouble: Trouble, point: str = "", **runner: float) -> Supervised:
    """Trouble under load, for which the worker stops itself at ``point``; the worker, which has answered everything once."""
    runner = {"commit_patience_seconds": 1.0, "session_timeout_seconds": 30.0} | runner
    rig = Rig.on(broker, folder, bench, 2, **runner).provision()
    with Publisher(rig) as publisher, Supervised(rig, point=point, nth=5) as worker:
        publisher.keep_on(300, aborts=False)
        worker.worker.wait_for("Assigned")
        pause(0.5)
        trouble(broker, worker)
        pause(0.5)
        publisher.stop()
        wait_until(lambda: answers(rig), 90, "the broker answers a new client")
        settled(rig, None, 120)
        worker.drain()
        assert check(gather(rig, publisher)) == []
    return worker


@pytest.mark.parametrize("bench", [pytest.param(ECHO, marks=pytest.mark.slow), COUNTING], ids=lambda bench: bench.name)
def test_broker_restart(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    """However long the restart takes on a slow machine, the transaction outlives it: a broker that ends it says that we were fenced."""
    assert goes_on(broker, tmp_path, bench, restarted, "", **OUTLIVES).failures == []


@pytest.mark.slow
def test_broker_frozen_longer_than_a_commit_is_waited_for(broker: Broker, tmp_path: Path) -> None:
    assert goes_on(broker, tmp_path, ECHO, frozen(8.0), COMMIT, **OUTLIVES).failures == []


@pytest.mark.slow
@BOTH
def test_a_broker_that_crashes(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    """It may time the transaction out, and says so as if another process had taken the slot: the process ends and begins again."""
    assert set(goes_on(broker, tmp_path, bench, crashed).failures) <= {"Fenced", "Unavailable"}


@pytest.mark.slow
@BOTH
def test_an_outage_longer_than_every_patience(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    """Calls, transaction and session all run out: the producer is replaced, or the process begins again."""
    worker = goes_on(broker, tmp_path, bench, frozen(35.0), COMMIT)
    assert set(worker.failures) <= {"Fenced", "Unavailable"}
    assert worker.failures or worker.events("ProducerReplaced")
