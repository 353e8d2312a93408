"""Requests as many producers send them: most good, some late, some without a model, some sent twice, one in a hundred poison."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any

import msgspec
import numpy as np

from millrace.infra.kafka.clients import full_name, producer
from millrace.infra.settings import Settings
from millrace.schemas.record import Format
from millrace.schemas.topics import REQUESTS
from tests.stack import wait_until

MODEL = "m"
UNITS = 40
NUMBER = "number"
PACKED = Format.MSGPACK.value.encode()


class Kind(Enum):
    """What becomes of a request."""

    ANSWERED = auto()
    LATE = auto()
    BARE = auto()
    LATE_BARE = auto()
    POISON = auto()


KINDS = {10: Kind.LATE, 20: Kind.BARE, 30: Kind.LATE_BARE}
POISON = 99
TWICE = 40
AGAIN_AFTER = 7


def _nested(levels: int) -> bytes:
    return b'{"id": "p", "unit_id": "u", "model": "m", "vector": [1, 2], "context": {"a": %s%s}}' % (b"[" * levels, b"]" * levels)


def _packed(**fields: Any) -> bytes:
    return msgspec.msgpack.encode({"id": "p", "unit_id": "u", "model": MODEL} | fields)


def _plain(**fields: Any) -> bytes:
    return msgspec.json.encode({"id": "p", "unit_id": "u", "model": MODEL, "vector": [1, 2]} | fields)


def poisons() -> list[tuple[bytes | None, Format, str]]:
    """Every way to be refused: value, format, and what the reason says."""
    now = datetime.now(UTC)
    nan, infinite = np.array([1, np.nan], "<f4").tobytes(), [float("inf"), 1.0]
    return [
        (b"not json", Format.JSON, "JSON is malformed"),
        (b"\xc1", Format.MSGPACK, "MessagePack data is malformed"),
        (None, Format.JSON, "the record has no value"),
        (_plain(id=7), Format.JSON, "Expected `str`, got `int` - at `$.id`"),
        (_plain(vector=["1", 2]), Format.JSON, "$.vector[0]: expected a number, got str"),
        (_plain(vector=[1] * 10_001), Format.JSON, "$.vector: 10001 features, the limit is 10000"),
        (_plain(context={"a": "x" * 1_025}), Format.JSON, "a string of 1025 characters, the limit is 1024"),
        (_packed(vector=nan), Format.MSGPACK, "$.vector[1]: nan is not a finite number"),
        (_packed(features={"f0": infinite[0], "f1": infinite[1]}), Format.MSGPACK, "$.features['f0']: inf is not a finite number"),
        (_nested(10), Format.JSON, "nested deeper than 8, the limit"),
        (_nested(5_000), Format.JSON, "RecursionError"),
        (_plain(time=now - timedelta(days=8)), Format.JSON, "before the record was appended"),
        (_plain(time=now + timedelta(days=365)), Format.JSON, "after the record was appended"),
    ]


POISONS = poisons()


def kind_of(number: int) -> Kind:
    """The kind of the request with this number."""
    return Kind.POISON if number % 100 == POISON else KINDS.get(number % 50, Kind.ANSWERED)


def reason_of(number: int) -> str:
    """What the reason for refusing this number says."""
    return POISONS[number // 100 % len(POISONS)][2]


def unit_of(number: int) -> str:
    """The unit of a number; poison is spread over the units too."""
    return f"u{(number // 100 if kind_of(number) is Kind.POISON else number) % UNITS}"


class Traffic:
    """Publishes numbered requests, at most ``per_second`` of them, while ``flowing``."""

    def __init__(self, settings: Settings, per_second: int = 300) -> None:
        self._producer, self._topic = producer(settings), full_name(settings, REQUESTS)
        self._seconds = 1 / per_second
        self._pending: list[tuple[int, int]] = []
        self.sent: Counter[int] = Counter()
        self.gone: Counter[int] = Counter()
        """Those of them that stood on a topic which was deleted."""
        self.next = 0

    @property
    def standing(self) -> Counter[int]:
        """What was sent to the topic as it is now."""
        return self.sent - self.gone

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Publish for as long as the block lasts; at its end the broker has all of it."""
        ended = threading.Event()
        thread = threading.Thread(target=self._flow, args=(ended,), name="traffic")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if left := self._producer.flush(120):
            raise AssertionError(f"{left} requests could not be published")

    def reach(self, requests: int, seconds: float = 60.0) -> None:
        """Wait until so many more requests have been sent."""
        wanted = self.next + requests
        wait_until(lambda: self.next >= wanted, seconds, f"{requests} requests sent")

    def burst(self, requests: int) -> None:
        """Publish so many at once."""
        for _ in range(requests):
            self._one()
        if left := self._producer.flush(120):
            raise AssertionError(f"{left} requests could not be published")

    def poison(self, requests: int) -> None:
        """Publish so many at once that are poison, and nothing else."""
        for _ in range(requests):
            self.next += (POISON - self.next) % 100
            self._one()
        if left := self._producer.flush(120):
            raise AssertionError(f"{left} requests could not be published")

    def renew(self, settings: Settings) -> None:
        """The topic was deleted and made anew: what was sent is gone, and nothing of it is sent again."""
        self._producer = producer(settings)
        self._pending.clear()
        self.gone = self.sent.copy()

    def _flow(self, ended: threading.Event) -> None:
        due = time.monotonic()
        while not ended.is_set():
            self._one()
            due = max(due + self._seconds, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))

    def _one(self) -> None:
        number, self.next = self.next, self.next + 1
        self._publish(number)
        if number % 50 == TWICE:
            self._pending.append((number, number + AGAIN_AFTER))
        while self._pending and self._pending[0][1] <= number:
            self._publish(self._pending.pop(0)[0])

    def _publish(self, number: int) -> None:
        value, form = POISONS[number // 100 % len(POISONS)][:2] if kind_of(number) is Kind.POISON else _good(number)
        headers: list[tuple[str, str | bytes | None]] = [(NUMBER, b"%d" % number)]
        if form is Format.MSGPACK:
            headers.append(("content-type", PACKED))
        self._producer.produce(self._topic, value, unit_of(number), headers=headers)
        self.sent[number] += 1
        self._producer.poll(0)


def _good(number: int) -> tuple[bytes, Format]:
    fields: dict[str, Any] = {"id": f"r{number}", "unit_id": unit_of(number), "context": {"n": number}}
    kind, now = kind_of(number), datetime.now(UTC)
    if kind in (Kind.LATE, Kind.LATE_BARE):
        fields["deadline"] = now - timedelta(seconds=1)
    elif number % 4 == 1:
        fields["deadline"] = now + timedelta(hours=1)
    if kind in (Kind.ANSWERED, Kind.LATE):
        fields["model"] = MODEL
    if number % 3 == 0:
        return msgspec.json.encode(fields | {"features": {"f1": 1.0, "f0": number / 10}}), Format.JSON
    if number % 3 == 1:
        return msgspec.json.encode(fields | {"vector": [number / 10, 1]}), Format.JSON
    return msgspec.msgpack.encode(fields | {"vector": np.array([number / 10, 1], "<f4").tobytes()}), Format.MSGPACK


def of_kinds(numbers: Iterable[int], *kinds: Kind) -> list[int]:
    """The numbers of these kinds."""
    return [number for number in numbers if kind_of(number) in kinds]
