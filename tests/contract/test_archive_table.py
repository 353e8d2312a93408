"""Do the real table and the one in memory, by which the intents are proven, keep the same rules?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Protocol

import pytest
from msgspec.structs import replace

from millrace.infra.clickhouse.blocks import Builder, Place
from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.migrate import migrate
from millrace.infra.clickhouse.store import LeaseOver, Span, Store
from millrace.infra.settings import ClickHouseSettings
from millrace.schemas.tables import TABLES
from millrace.streams.intent import Intent
from tests.ledger import TOPIC_ID, MemoryTable, record
from tests.stack import ClickHouse

DATABASE = "archive_contract"


class Table(Protocol):
    """What both are asked for. ``now`` is the server's clock."""

    def seconds(self) -> float: ...

    def insert(self, intent: Intent, offsets: list[int]) -> None: ...

    def highest(self, at_least: int) -> int | None: ...

    def present(self, intent: Intent) -> frozenset[int]: ...


class InMemory(MemoryTable):
    """The one by which the intents are proven."""

    def seconds(self) -> float:
        return self.now


class Real:
    """One partition of a table on ClickHouse."""

    def __init__(self, client: Client, partition: int) -> None:
        self._client, self._partition = client, partition
        self._store, self._builder = Store(client, 20), Builder(TABLES["requests"])

    def seconds(self) -> float:
        return float(self._client.rows("SELECT toFloat64(now64(3))")[0][0])

    def insert(self, intent: Intent, offsets: list[int]) -> None:
        records = [record(offset) for offset in offsets]
        block = self._builder.build(records, Place(TOPIC_ID, self._partition, intent.lease_seconds))
        self._store.insert("requests", block, intent.token(TOPIC_ID, self._partition))

    def highest(self, at_least: int) -> int | None:
        return self._store.highest(self._span(at_least, 1 << 62))

    def present(self, intent: Intent) -> frozenset[int]:
        found = self._store.present(self._span(intent.start, intent.end)).tolist()
        assert len(found) == len(set(found)), "an offset stands in two rows"
        return frozenset(found)

    def _span(self, start: int, end: int) -> Span:
        return Span("requests", TOPIC_ID, self._partition, start, end)


partitions = count()


@pytest.fixture(scope="module")
def client(clickhouse: ClickHouse) -> Client:
    client = Client(ClickHouseSettings(address=clickhouse.url, database=DATABASE))
    migrate(client)
    return client


@pytest.fixture(params=["memory", "real"])
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    if request.param == "memory":
        yield InMemory(20)
    else:
        yield Real(request.getfixturevalue("client"), next(partitions))


def lease(table: Table, seconds: float) -> int:
    return int(table.seconds() + seconds)


def test_a_block_is_stored(table: Table) -> None:
    intent = Intent(0, 9, lease(table, 30))
    table.insert(intent, [0, 1, 5])
    assert table.present(intent) == {0, 1, 5}


def test_an_empty_table_has_no_highest_offset(table: Table) -> None:
    assert table.highest(0) is None


def test_the_highest_offset_at_or_above(table: Table) -> None:
    table.insert(Intent(0, 9, lease(table, 30)), [0, 1, 5])
    assert [table.highest(0), table.highest(5), table.highest(6)] == [5, 5, None]


def test_the_same_token_is_stored_once(table: Table) -> None:
    intent = Intent(0, 3, lease(table, 30))
    for _ in range(3):
        table.insert(intent, [0, 1, 2])
    assert table.present(intent) == {0, 1, 2}


def test_the_first_block_under_a_token_wins_whatever_the_next_one_holds(table: Table) -> None:
    intent = Intent(0, 3, lease(table, 30))
    table.insert(intent, [0, 1])
    table.insert(intent, [0, 1, 2])
    assert table.present(intent) == {0, 1}


def test_after_a_look_the_token_is_another_one(table: Table) -> None:
    intent = Intent(0, 3, lease(table, 30))
    table.insert(intent, [0, 1])
    table.insert(Intent(0, 3, intent.lease_seconds + 1, look=True), [2])
    assert table.present(intent) == {0, 1, 2}


def test_a_lease_that_is_over_is_refused(table: Table) -> None:
    intent = Intent(0, 3, lease(table, -2))
    with pytest.raises(LeaseOver):
        table.insert(intent, [0, 1, 2])
    assert table.present(intent) == frozenset()


def test_a_lease_that_is_over_is_refused_even_for_a_known_token(table: Table) -> None:
    table.insert(Intent(0, 3, lease(table, 30)), [0, 1, 2])
    with pytest.raises(LeaseOver):
        table.insert(Intent(0, 3, lease(table, -2)), [0, 1, 2])


def test_presence_is_of_the_span_alone(table: Table) -> None:
    table.insert(Intent(0, 9, lease(table, 30)), [0, 4, 8])
    assert table.present(Intent(1, 8, 0)) == {4}


def test_the_table_takes_what_the_builder_lets_pass(client: Client) -> None:
    values = [
        b'{"id": "a", "unit_id": "u", "time": "1900-01-01T00:00:00Z", "deadline": "2299-12-30T23:59:59.999999Z"}',
        b'{"id": "\\u0000", "unit_id": "' + "\N{GRINNING FACE}".encode() + b'", "vector": [1e300, -0.0, 1e-320]}',
        b'{"id": "", "unit_id": "", "entities": {"": ""}, "features": {"a": 1e400}, "context": {"a": [[{}]]}}',
    ]
    records = [replace(record(offset), value=value, key=b"\xff\x00") for offset, value in enumerate(values)]
    real = Real(client, next(partitions))
    block = Builder(TABLES["requests"]).build(records, Place(TOPIC_ID, 999, lease(real, 30)))
    assert block.undecoded == 0
    Store(client, 20).insert("requests", block, "extremes")
    sql = f"SELECT toString(time), toString(deadline), vector, entities FROM {DATABASE}.requests WHERE _partition = 999 ORDER BY _offset"
    first, second, third = client.rows(sql)
    assert first[:2] == ("1900-01-01 00:00:00.000000", "2299-12-30 23:59:59.999999")
    assert second[2] == [float("inf"), 0.0, 0.0]
    assert third[3] == {"": ""}
