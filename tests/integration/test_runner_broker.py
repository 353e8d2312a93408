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


@BOTH
def test_broker_restart(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    assert goes_on(broker, tmp_path, bench, restarted).failures == []


def test_broker_frozen_longer_than_a_commit_is_waited_for(broker: Broker, tmp_path: Path) -> None:
    worker = goes_on(broker, tmp_path, ECHO, frozen(8.0))
    assert worker.failures == []
    assert worker.events("ReadinessChanged")[-2]["reason"] == "Kafka does not answer: a commit is under way"


@pytest.mark.slow
def test_a_commit_that_stays_unknown_replaces_the_producer(broker: Broker, tmp_path: Path) -> None:
    """Long enough for every call to have run into its time-out."""
    worker = goes_on(broker, tmp_path, COUNTING, frozen(13.0))
    assert worker.failures == []
    assert worker.events("ProducerReplaced")


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("trouble", [crashed, frozen(35.0)], ids=["crash", "long"])
def test_an_outage_longer_than_a_transaction_lives(broker: Broker, tmp_path: Path, bench: Bench, trouble: Callable[[Broker], None]) -> None:
    """The broker times the transaction out, and says so as if another process had taken the slot: the process ends and begins again."""
    assert set(goes_on(broker, tmp_path, bench, trouble).failures) <= {"Fenced", "Unavailable"}
