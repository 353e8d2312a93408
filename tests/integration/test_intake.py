"""Does the real worker move what anybody publishes to its unit's partition, once for each record, whenever it is killed?"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millrace.infra.kafka.clients import full_name, producer
from millrace.infra.kafka.partition import partition_of
from millrace.infra.settings import Settings
from millrace.schemas.event import from_ms
from millrace.schemas.record import Format
from millrace.schemas.topics import OUTCOMES, OUTCOMES_BY_UNIT
from millrace.schemas.wire import codec
from millrace.workers.replay import ROLES, replay
from tests.integration.harness import Rig, WorkerProcess
from tests.integration.harness.publish import pause
from tests.integration.harness.readback import commits, in_order, letters
from tests.integration.harness.rig import INTAKE
from tests.stack import Broker, wait_until

TRACE = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
PACKED = ("content-type", b"application/msgpack")
POISON = (b"not json", b'{"unit_id":"u","metric":"","value":1}', b'{"unit_id":"u","metric":"m","value":1e300}')
KILLS = (("after produce", 2), ("before commit", 2), ("after commit", 1))
REAL = "millrace.workers.intake"


@pytest.fixture
def rig(broker: Broker, tmp_path: Path) -> Rig:
    return Rig.on(broker, tmp_path, INTAKE, partitions=3).provision()


class Shop:
    """An outside producer of outcomes, whose partitions have nothing to do with units."""

    def __init__(self, settings: Settings) -> None:
        self._producer, self._name = producer(settings), full_name(settings, OUTCOMES)
        self._turns = itertools.cycle(range(settings.kafka.partitions))
        self._number = 0

    def send(self, value: bytes | dict[str, Any], *headers: Any) -> None:
        raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
        self._producer.produce(self._name, raw, None, next(self._turns), headers=list(headers))

    def sell(self, outcomes: int) -> None:
        """The next outcomes; of every tenth there are two records."""
        for number in range(self._number, self._number + outcomes):
            sold = {"unit_id": f"u{number % 7}", "metric": "paid", "value": number, "id": f"payment-{number}"}
            for _ in range(2 if number % 10 == 0 else 1):
                self.send(sold)
        self._number += outcomes
        self.flush()

    def flush(self) -> None:
        assert self._producer.flush(20) == 0


def there(settings: Settings, records: int) -> None:
    """Wait until so many records are moved or refused."""

    def done() -> bool:
        return len(in_order(settings, OUTCOMES_BY_UNIT)) + len(letters(settings)) >= records

    wait_until(done, 60, f"{records} outcomes moved or refused")


def test_every_outcome_goes_to_its_unit_once_whenever_the_worker_is_killed(rig: Rig) -> None:
    settings, shop = rig.settings, Shop(rig.settings)
    shop.send({"unit_id": "u", "metric": "paid", "value": 1, "request_id": "r"}, TRACE)
    packed = msgspec.msgpack.encode({"unit_id": "packed", "metric": "paid", "value": 0.5, "id": "p"})
    shop.send(packed, PACKED, TRACE)
    for poison in POISON:
        shop.send(poison)
    shop.flush()
    for point, nth in KILLS:
        with WorkerProcess(rig, point, nth) as doomed:
            doomed.wait_for("Assigned")
            while doomed.alive:
                shop.sell(20)
                pause(0.02)
        assert doomed.wait() == -9
    sent = in_order(settings, OUTCOMES)
    with WorkerProcess(rig, program=REAL) as worker:
        there(settings, len(sent))
        worker.drain()

    moved = in_order(settings, OUTCOMES_BY_UNIT)
    events = [codec(OUTCOMES_BY_UNIT).decode(record.value, record.headers) for record in moved]
    assert len(moved) + len(POISON) == len(sent)
    assert {partition_of(event.unit_id, 3) == record.partition for event, record in zip(events, moved, strict=True)} == {True}
    published = Counter(event.outcome_id for event in events if event.unit_id not in ("u", "packed"))
    assert published == {f"payment-{n}": 2 if n % 10 == 0 else 1 for n in range(len(published))}
    assert len({event.id for event in events}) == len(published) + 2

    alone = {event.unit_id: (event, dict(record.headers or ())) for event, record in zip(events, moved, strict=True)}
    (event, headers), (own, packed_headers) = alone["u"], alone["packed"]
    (cause,) = [record for record in sent if b'"request_id":"r"' in (record.value or b"")]
    assert (event.request_id, event.time, event.outcome_id) == ("r", from_ms(cause.appended_ms), None)
    assert (headers["traceparent"], headers["content-type"]) == (TRACE[1], Format.JSON.value.encode())
    assert (own.value, own.outcome_id, packed_headers["content-type"]) == (0.5, "p", Format.MSGPACK.value.encode())
    assert sorted(letter.reason.split(":")[0] for letter in letters(settings)) == ["$.metric", "$.value", "JSON is malformed"]

    report = replay(settings, ROLES["intake"])
    assert report.equal, report.first
    assert report.transactions == report.transactions_equal == len(commits(settings)) > len(KILLS)
    assert report.events_equal == len(sent) + report.transactions
