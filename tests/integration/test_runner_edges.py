"""Corners of the loop: time without records, members that read other topics, a revoke without an answer, a broker that tells no end."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException, Producer

from millrace.infra.kafka.clients import Slot, admin, full_name, group_consumer, group_name
from millrace.infra.kafka.inputs import Inputs
from millrace.infra.kafka.positions import Metadata, Place, Position, with_metadata
from millrace.infra.telemetry import Assigned, EndUnknown, Polled
from millrace.schemas.errors import Fenced, NotCoPartitioned, Stop, TopicRecreated
from millrace.schemas.topics import ASSIGNMENTS, REQUESTS
from tests.integration.harness import COUNTING, ECHO, InThread, Publisher, Rig, WorkerProcess, check, gather, outputs, settled
from tests.integration.harness.publish import assignment, pause, request
from tests.stack import Broker, wait_until

TIMEOUTS = 20


def assignments_alone(rig: Rig, publisher: Publisher) -> None:
    """Assignments that wait for a prediction, in a transaction: each log ends with a marker, of which only its end tells."""
    transactional = Producer({"bootstrap.servers": rig.settings.kafka.address, "transactional.id": f"test-{uuid.uuid4().hex}"})
    transactional.init_transactions(60)
    transactional.begin_transaction()
    for number in range(1_000, 1_000 + TIMEOUTS):
        publisher.send(ASSIGNMENTS.name, assignment(number, publisher.unit(number)), transactional)
    transactional.commit_transaction(60)


def timed_out(rig: Rig) -> bool:
    return len(outputs(rig)) == TIMEOUTS


def test_ticks_are_due_where_only_ends_are_read(broker: Broker, tmp_path: Path) -> None:
    """One input never gives a record and the other no more of them: both logs end with markers, and the timers come out all the same."""
    rig = Rig.on(broker, tmp_path, COUNTING).provision()
    with Publisher(rig) as publisher, InThread(rig) as worker:
        publisher.aborted_burst(TIMEOUTS)
        assignments_alone(rig, publisher)
        wait_until(lambda: timed_out(rig), 60, "timeouts of all assignments")
        settled(rig)
        assert {topic for polled in worker.seen(Polled) for topic in polled.records} == {ASSIGNMENTS.name}
    assert check(gather(rig, publisher)) == []


def test_an_end_that_is_not_told_is_told_of_and_asked_for_again(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig.on(broker, tmp_path, COUNTING).provision()
    with Publisher(rig) as publisher, InThread(rig) as worker:
        worker.wait_for(Assigned)
        client, name = worker.runner._inputs._admin, full_name(rig.settings, ASSIGNMENTS)
        ask = client.list_offsets

        def refused(wanted: Any, **options: Any) -> dict[Any, Any]:
            failed: Future[Any] = Future()
            failed.set_exception(KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE)))
            return {place: failed if place.topic == name else answer for place, answer in ask(wanted, **options).items()}

        monkeypatch.setattr(worker.runner._inputs, "_admin", Replaced(client, refused))
        assignments_alone(rig, publisher)
        unknown = worker.wait_for(EndUnknown, 4)
        assert (unknown.topic, unknown.reason) == (ASSIGNMENTS.name, "Broker: Leader not available")
        assert outputs(rig) == []
        value = worker.telemetry.metrics.registry.get_sample_value
        labels = {"worker": "counter", "slot": "counter-0", "topic": ASSIGNMENTS.name}
        assert (value("millrace_ends_unknown_total", labels) or 0) >= 4
        monkeypatch.undo()
        wait_until(lambda: timed_out(rig), 60, "timeouts of all assignments")
    assert check(gather(rig, publisher)) == []


class Replaced:
    """A client of which one call is another's."""

    def __init__(self, client: Any, list_offsets: Any) -> None:
        self._client, self.list_offsets = client, list_offsets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_offsets_that_belong_to_another_life_of_a_topic(broker: Broker, tmp_path: Path) -> None:
    """Kafka forgets the offsets of a topic that is deleted; offsets that were copied from elsewhere can still be of another one."""
    rig = Rig.on(broker, tmp_path, ECHO).provision()
    name, client = full_name(rig.settings, REQUESTS), group_consumer(rig.settings, Slot(rig.bench.role, 0))
    places = [with_metadata((name, number), Position(0, Metadata("AAAAAAAAAAAAAAAAAAAAAA"))) for number in range(2)]
    client.commit(offsets=places, asynchronous=False)
    client.close()
    with Publisher(rig) as publisher:
        publisher.burst(20)
        with InThread(rig) as worker:
            error = worker.error()
            assert isinstance(error, TopicRecreated)
            assert f"`millrace offsets reset {ECHO.role} --to earliest`" in str(error)
        assert outputs(rig) == []


class Nobody:
    """Is told of assignments and does nothing about them."""

    def assigned(self, positions: dict[Place, Position]) -> None: ...

    def revoked(self, places: list[Place], *, lost: bool) -> None: ...


def test_a_fenced_member_that_goes_back_says_that_it_was_fenced(broker: Broker, tmp_path: Path) -> None:
    """A zombie may go back to its committed offsets before any poll has told it: all that it is told then is that it may not."""
    rig = Rig.on(broker, tmp_path, ECHO).provision()

    def joined() -> Inputs:
        inputs = Inputs(rig.settings, Slot(ECHO.role, 0), ECHO.inputs, Nobody())
        inputs.start()

        def assigned() -> bool:
            inputs.poll(1, 0.05, 0.0)
            return len(inputs.owned) == 2

        wait_until(assigned, 60, "both partitions")
        return inputs

    zombie = joined()
    successor = joined()

    def went_back_in_vain() -> bool:
        """A heartbeat has to be refused first: until then it may go back, again and again, as far as it knows."""
        zombie.rewind(dict.fromkeys(zombie.owned, 0))
        return False

    try:
        with pytest.raises(Fenced, match="another process joined the group in this slot"):
            wait_until(went_back_in_vain, 60, "the zombie is told that it was fenced")
    finally:
        zombie.close()
        successor.close()


@contextmanager
def stranger(rig: Rig) -> Iterator[None]:
    """A member of the same group that reads one of its two topics, as a worker of another version might; it is in the group by now."""
    ended, joined = threading.Event(), threading.Event()
    consumer = Consumer(
        {
            "bootstrap.servers": rig.settings.kafka.address,
            "group.id": group_name(rig.settings, rig.bench.role),
            "partition.assignment.strategy": "range",
            "session.timeout.ms": 6_000,
        }
    )
    consumer.subscribe([full_name(rig.settings, ASSIGNMENTS)], on_assign=lambda *_: joined.set())

    def poll() -> None:
        while not ended.is_set():
            consumer.poll(0.05)

    thread = threading.Thread(target=poll, name="stranger")
    thread.start()
    try:
        assert joined.wait(60), "the stranger is in the group"
        yield
    finally:
        ended.set()
        thread.join()
        consumer.close()


def test_joined_topics_that_are_assigned_apart(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, COUNTING).provision()
    with Publisher(rig) as publisher:
        publisher.burst(50)
        with stranger(rig), InThread(rig) as worker:
            error = worker.error()
            assert isinstance(error, NotCoPartitioned)
            assert "joined topics were assigned apart" in str(error)
            assert "All members of a group must be of the same version." in str(error)
        assert outputs(rig) == []


def test_a_revoke_that_meets_no_answer_stops_at_its_deadline(broker: Broker, tmp_path: Path) -> None:
    """A second worker waits for its share when a commit of the first hangs: the first ends, and what hung is told to the next owner."""
    # The first one's next poll must meet the revoke: it waits long, and an end of a log was read beside the one record before it.
    rig = Rig.on(broker, tmp_path, ECHO, revoke_deadline_seconds=0.5, gather_seconds=0.5, idle_seconds=30.0, session_timeout_seconds=10.0)
    began, joining, answered = threading.Event(), threading.Event(), threading.Event()
    waits_at = {"before produce": joining, "before commit": answered}

    def at(point: str) -> None:
        if point in waits_at:
            began.set()
            waits_at[point].wait(120)

    with ExitStack() as stack:
        publisher = stack.enter_context(Publisher(rig.provision()))
        first = stack.enter_context(InThread(rig, at))
        stack.callback(answered.set)
        stack.callback(joining.set)
        first.wait_for(Assigned)
        unit = next(unit for unit in map(publisher.unit, range(17)) if publisher.partition(unit) == 1)  # the second one's share
        publisher.send(REQUESTS.name, request(0, unit))
        publisher.flush()
        assert began.wait(60), "the first one has a turn under way"
        quick = rig.at(ordinal=1, runner=rig.tree["runner"] | {"gather_seconds": 0.005, "idle_seconds": 0.05})
        second = stack.enter_context(WorkerProcess(quick))
        wait_until(lambda: rebalancing(rig), 60, "the group waits for its first member")
        pause(5.0)  # several heartbeats: by then one has told the first one, whose next poll learns it whatever else stands in its queue
        joining.set()
        error = first.error()
        assert isinstance(error, Stop)
        assert str(error) == "the commit was not answered within the revoke deadline; the next owner resolves it"
        assert outputs(rig) == []
        answered.set()
        settled(rig, second, 120)
        second.drain()
        assert check(gather(rig, publisher)) == []


def rebalancing(rig: Rig) -> bool:
    """Whether the group knows of a member that it has not given anything yet."""
    client, group = admin(rig.settings), group_name(rig.settings, rig.bench.role)
    (future,) = client.describe_consumer_groups([group]).values()
    return bool(future.result().state == ConsumerGroupState.PREPARING_REBALANCING)
