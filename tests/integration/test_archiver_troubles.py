"""Troubles that are not the archiver's own: a table that refuses rows, a Kafka that is silent or forbids, more archivers than work."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import msgpack

from millrace.infra.clickhouse.client import Client
from millrace.infra.kafka.clients import producer
from millrace.schemas.topics import REQUESTS
from tests.integration.archive import QUICK, Load, archive_rig, archiver, settle
from tests.integration.harness import WorkerProcess
from tests.integration.harness.rig import Rig
from tests.stack import Broker, ClickHouse, wait_until

PATIENT = QUICK | {"lease_seconds": 60.0, "insert_timeout_seconds": 20.0}


@pytest.fixture
def rig(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> Rig:
    return archive_rig(broker, clickhouse, tmp_path)


def rows(rig: Rig, sql: str) -> list[tuple[object, ...]]:
    """What ClickHouse answers, about this test's database."""
    client = Client(rig.settings.clickhouse)
    return [tuple(row) for row in client.rows(sql.replace("FROM ", f"FROM {client.database}."))]


def counted(rig: Rig, table: str) -> int:
    return int(str(rows(rig, f"SELECT count() FROM {table}")[0][0]))


def told(worker: WorkerProcess, words: str) -> bool:
    """Whether it said that it is not ready for this reason."""
    return any(words in event["reason"] for event in worker.events("ReadinessChanged"))


def test_a_table_that_refuses_its_rows_holds_up_no_other(rig: Rig) -> None:
    rig = rig.at(archiver=PATIENT)
    client = Client(rig.settings.clickhouse)
    view = f"{client.database}.mine"
    throwing = f"SELECT throwIf(1, 'mine') AS x FROM {client.database}.outcomes"
    with archiver(rig) as worker:
        worker.wait_for("Assigned")
        client.command(f"CREATE MATERIALIZED VIEW {view} ENGINE = Null AS {throwing}")
        with Load(rig.settings) as load:
            worker.wait_for("BlockRefused")
            before = counted(rig, "requests")
            load.reach(1_000)
            wait_until(lambda: counted(rig, "requests") > before + 500, 30, "requests in their table, long before a lease is over")
            wait_until(lambda: told(worker, "ClickHouse refuses rows of outcomes"), 30, "not ready")
        client.command(f"DROP VIEW {view}")
        settle(rig)
        wait_until(lambda: worker.events("ReadinessChanged")[-1]["ready"], 30, "ready again")
        assert worker.events("PlaceUnavailable") == []


def test_a_silent_kafka_is_told(rig: Rig, broker: Broker) -> None:
    with archiver(rig) as worker:
        wait_until(lambda: any(event["ready"] for event in worker.events("ReadinessChanged")), 60, "ready")
        broker.pause()
        try:
            wait_until(lambda: told(worker, "Kafka does not answer"), 60, "not ready")
        finally:
            broker.resume()
        wait_until(lambda: worker.events("ReadinessChanged")[-1]["ready"], 60, "ready again")


def test_an_archiver_more_than_there_are_partitions_is_ready(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    rig = archive_rig(broker, clickhouse, tmp_path, partitions=1)
    with archiver(rig) as first:
        first.wait_for("Assigned")
        with archiver(rig.at(ordinal=1)) as second:
            assert second.wait_for("Assigned")["partitions"] == {}
            wait_until(lambda: second.events("ReadinessChanged")[-1]["ready"], 60, "ready")


def test_what_serializers_write_for_nothing_and_never_costs_no_row(rig: Rig) -> None:
    """A null vector beside features, and a deadline that no clock will reach."""
    never = b'{"id":"n1","unit_id":"u","model":"m","features":{"a":1},"vector":null,"deadline":"9999-12-31T23:59:59Z"}'
    packed = msgpack.encode({"id": "n2", "unit_id": "u", "model": "m", "features": {"a": 1}, "vector": None})
    client = producer(rig.settings)
    client.produce(f"{rig.settings.topic_prefix}{REQUESTS.name}", never, "u")
    client.produce(f"{rig.settings.topic_prefix}{REQUESTS.name}", packed, "u", headers=[("content-type", b"application/msgpack")])
    assert client.flush(60) == 0
    with archiver(rig):
        settle(rig)
    found = rows(rig, "SELECT id, vector, toYear(deadline), _error FROM requests ORDER BY id")
    assert found == [("n1", [], 2299, ""), ("n2", [], None, "")]
