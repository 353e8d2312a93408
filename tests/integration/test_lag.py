"""Does the lag go on growing while nothing is read? That is when somebody looks at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.telemetry import Held
from millrace.schemas.topics import REQUESTS
from millrace.workers.stack.probe import get
from tests.integration.archive import archive_rig, archiver, settle
from tests.integration.harness import ECHO, InThread, Publisher, Rig
from tests.stack import Broker, ClickHouse, claim_base, wait_until

RUN = 10


@pytest.fixture
def held(broker: Broker, tmp_path: Path) -> Iterator[tuple[InThread, Publisher]]:
    """A worker whose partition 0 is held at the dead-letter cap, with nothing behind it yet."""
    rig = Rig.on(broker, tmp_path, ECHO, dead_letter_run=RUN).provision()
    with Publisher(rig) as publisher, InThread(rig) as worker:
        poison(publisher, RUN + 1)
        worker.wait_for(Held)
        yield worker, publisher


def poison(publisher: Publisher, records: int, partition: int = 0) -> None:
    """Publish what cannot be decoded."""
    for _ in range(records):
        publisher.raw(REQUESTS.name, None, b"{", partition)
    publisher.flush()


def lag(worker: InThread, partition: int) -> float | None:
    labels = {"worker": "inference", "slot": worker.slot, "topic": REQUESTS.name, "partition": str(partition)}
    return worker.telemetry.metrics.registry.get_sample_value("millrace_lag_records", labels)


def test_the_lag_of_a_held_group_grows(held: tuple[InThread, Publisher]) -> None:
    worker, publisher = held
    for more in (30, 70):
        poison(publisher, more)
        behind = {30: 31, 70: 101}[more]
        wait_until(lambda behind=behind: lag(worker, 0) == behind, 60, f"{behind} records behind")  # type: ignore[misc]
    wait_until(lambda: lag(worker, 1) == 0, 60, "the other partition is read")
    assert worker.telemetry.status()["lag"] == 101


def test_the_lag_of_an_archiver_without_clickhouse_grows(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """By far more than it holds in memory before its partitions pause."""
    rig, port = archive_rig(broker, clickhouse, tmp_path), claim_base()
    small = {"archiver": rig.tree["archiver"] | {"block_rows": 20}, "runner": rig.tree["runner"] | {"poll_records": 20}}
    rig = rig.at(**small, telemetry={"port": port})

    def status_lag() -> int | None:
        page = get(port, "/status")
        told: int | None = json.loads(page)["lag"] if page else None
        return told

    def more(records: int) -> None:
        publish(rig.settings, (Outgoing(REQUESTS.name, b"%d" % n, b'{"id": "r%d", "unit_id": "u"}' % n) for n in range(records)))

    with archiver(rig) as worker:
        worker.wait_for("Assigned")
        more(100)
        settle(rig)
        wait_until(lambda: status_lag() == 0, 60, "nothing is behind")
        clickhouse.kill()
        try:
            more(1_000)
            wait_until(lambda: status_lag() == 1_000, 60, "a thousand behind")
            more(1_000)
            wait_until(lambda: status_lag() == 2_000, 60, "two thousand behind")
        finally:
            clickhouse.start()
        settle(rig)
        wait_until(lambda: status_lag() == 0, 60, "nothing is behind any more")
        worker.drain()
