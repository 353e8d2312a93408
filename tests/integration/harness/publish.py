"""What a test publishes to a rig's inputs, with ids that it knows."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from confluent_kafka import Producer
from msgspec import Raw

from millrace.infra.kafka.clients import full_name, producer
from millrace.infra.kafka.partition import partition_of
from millrace.schemas.assignment import Assignment
from millrace.schemas.event import from_ms
from millrace.schemas.prediction import Prediction, Status
from millrace.schemas.request import Request
from millrace.schemas.topics import ASSIGNMENTS, BY_NAME, PREDICTIONS, REQUESTS
from millrace.schemas.wire import codec
from tests.integration.harness.rig import Rig

CODECS = {name: codec(topic) for name, topic in BY_NAME.items()}
TIME = from_ms(1_700_000_000_000)


def request(number: int, unit: str, **context: Any) -> Request:
    """A request with a known id."""
    return Request(id=f"r{number}", unit_id=unit, model="m", vector=Raw(b"[1,2]"), context=context)


def assignment(number: int, unit: str) -> Assignment:
    """An assignment for request ``r<number>``."""
    return Assignment(
        id=f"a{number}",
        request_id=f"r{number}",
        unit_id=unit,
        time=TIME,
        experiment="e",
        plan_version=1,
        variant="v",
        bucket=0.5,
        propensity=0.5,
    )


def prediction(number: int, unit: str, error: str = "") -> Prediction:
    """A prediction for request ``r<number>``."""
    return Prediction(
        id=f"p{number}", request_id=f"r{number}", unit_id=unit, time=TIME, model="m", version=1, digest="", status=Status.OK, error=error
    )


class Publisher:
    """Publishes numbered records of a bench; every seventh pair of a join is never completed, every third comes in the other order."""

    def __init__(self, rig: Rig, units: int = 17) -> None:
        self._rig, self._units, self._settings = rig, units, rig.settings
        self._producer = producer(self._settings)
        self._thread: threading.Thread | None = None
        self._end = threading.Event()
        self._numbering = threading.Lock()
        self.published = 0
        self.aborted: list[int] = []

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def unit(self, number: int) -> str:
        """The unit of a number."""
        return f"u{number % self._units}"

    def send(self, topic: str, event: Any, to: Producer | None = None) -> None:
        """Publish one event to its unit's partition."""
        self.raw(topic, event.unit_id.encode(), CODECS[topic].encode(event), self.partition(event.unit_id), to=to)

    def raw(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int, headers: Any = None, to: Producer | None = None
    ) -> None:
        """Publish bytes to a partition."""
        (to or self._producer).produce(full_name(self._settings, topic), value, key, partition, headers=headers)

    def partition(self, unit: str) -> int:
        """The partition of a unit."""
        return partition_of(unit, self._settings.kafka.partitions)

    def flush(self) -> None:
        """Wait until the broker has all of it."""
        if left := self._producer.flush(60):
            raise AssertionError(f"{left} records could not be published")

    def burst(self, records: int) -> None:
        """Publish the next ``records`` numbers and wait for the broker."""
        self._some(self._next(records), None)
        self.flush()

    def aborted_burst(self, records: int) -> None:
        """Publish numbers in a transaction that is aborted: nobody may ever see them."""
        transactional = Producer({"bootstrap.servers": self._settings.kafka.address, "transactional.id": f"test-{uuid.uuid4().hex}"})
        transactional.init_transactions(60)
        transactional.begin_transaction()
        numbers = self._next(records)
        self.aborted.extend(numbers)
        self._some(numbers, transactional)
        transactional.flush(60)
        transactional.abort_transaction(60)

    def keep_on(self, records_per_second: int, burst: int = 20, *, aborts: bool = True) -> None:
        """Publish in the background until ``stop``; one burst in ten is aborted, unless not ``aborts``."""
        self._thread = threading.Thread(target=self._loop, args=(burst, burst / records_per_second, aborts), name="publisher")
        self._thread.start()

    def stop(self) -> None:
        """Publish no more."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _next(self, records: int) -> range:
        """The next numbers, which nobody else publishes: a test publishes beside the background."""
        with self._numbering:
            first, self.published = self.published, self.published + records
        return range(first, first + records)

    def _loop(self, burst: int, seconds: float, aborts: bool) -> None:
        turn = 0
        while not self._end.wait(seconds):
            turn += 1
            (self.aborted_burst if aborts and turn % 10 == 0 else self.burst)(burst)

    def _some(self, numbers: Iterable[int], to: Producer | None) -> None:
        for number in numbers:
            if self._rig.bench.stateless:
                self.send(REQUESTS.name, request(number, self.unit(number)), to)
            else:
                self._pair(number, to)

    def _pair(self, number: int, to: Producer | None) -> None:
        unit = self.unit(number)
        pair: list[tuple[str, Any]] = [(ASSIGNMENTS.name, assignment(number, unit)), (PREDICTIONS.name, prediction(number, unit))]
        if number % 3 == 0:
            pair.reverse()
        for topic, event in pair if number % 7 else pair[:1]:
            self.send(topic, event, to)


def pause(seconds: float) -> None:
    """Let real time pass, where only real time brings the thing about."""
    time.sleep(seconds)
