"""A broker that restarts, crashes or freezes under a loaded worker: the worker goes on by itself and answers everything once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from millrace.infra.kafka.clients import describe, full_name
from millrace.schemas.errors import Unavailable
from tests.integration.harness import COUNTING, ECHO, Bench, Publisher, Rig, Supervised, check, gather, settled
from tests.integration.harness.publish import pause
from tests.stack import Broker, wait_until

BOTH = pytest.mark.parametrize("bench", [ECHO, COUNTING], ids=lambda bench: bench.name)


def restarted(broker: Broker) -> None:
    broker.restart()


def crashed(broker: Broker) -> None:
    broker.kill()
    broker.start()


def frozen(seconds: float) -> Callable[[Broker], None]:
    """Longer than a commit's patience: what became of it is then unknown."""

    def freeze(broker: Broker) -> None:
        broker.pause()
        pause(seconds)
        broker.resume()

    return freeze


def answers(rig: Rig) -> bool:
    """Whether the broker has found its controller again."""
    try:
        return bool(describe(rig.settings, [full_name(rig.settings, topic) for topic in rig.bench.inputs]))
    except Unavailable:
        return False


def goes_on(broker: Broker, folder: Path, bench: Bench, trouble: Callable[[Broker], None]) -> Supervised:
    """Trouble under load; the worker, which has answered everything once."""
    rig = Rig.on(broker, folder, bench, commit_patience_seconds=1.0, session_timeout_seconds=30.0).provision()
    with Publisher(rig) as publisher, Supervised(rig) as worker:
        publisher.keep_on(300, aborts=False)
        worker.worker.wait_for("Assigned")
        pause(0.5)
        trouble(broker)
        pause(0.5)
        publisher.stop()
        wait_until(lambda: answers(rig), 90, "the broker answers a new client")
        settled(rig, None, 60)
        worker.drain()
        assert check(gather(rig, publisher)) == []
    return worker


@pytest.mark.parametrize("bench", [pytest.param(ECHO, marks=pytest.mark.slow), COUNTING], ids=lambda bench: bench.name)
def test_broker_restart(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    assert goes_on(broker, tmp_path, bench, restarted).failures == []


def test_broker_frozen_longer_than_a_commit_is_waited_for(broker: Broker, tmp_path: Path) -> None:
    assert goes_on(broker, tmp_path, ECHO, frozen(8.0)).failures == []


@pytest.mark.slow
@BOTH
def test_a_broker_that_crashes(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    """It may time the transaction out, and says so as if another process had taken the slot: the process ends and begins again."""
    assert set(goes_on(broker, tmp_path, bench, crashed).failures) <= {"Fenced", "Unavailable"}


@pytest.mark.slow
@BOTH
def test_an_outage_longer_than_every_patience(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    """Calls, transaction and session all run out: the producer is replaced, or the process begins again."""
    worker = goes_on(broker, tmp_path, bench, frozen(35.0))
    assert set(worker.failures) <= {"Fenced", "Unavailable"}
    assert worker.failures or worker.events("ProducerReplaced")
