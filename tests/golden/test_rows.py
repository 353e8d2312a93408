"""Sample events: the bytes that were published become exactly these rows, whichever format they came in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from millrace.infra.clickhouse.blocks import Builder, Place
from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.migrate import migrate
from millrace.infra.clickhouse.store import Span, Store
from millrace.infra.settings import ClickHouseSettings
from millrace.schemas.record import Format, Record
from millrace.schemas.tables import TABLES
from tests.stack import ClickHouse

FOLDER = Path(__file__).parent
APPENDED_MS = 1_773_500_967_123
ENDINGS = {Format.JSON: "json", Format.MSGPACK: "msgpack"}
DATABASE = "golden"


@pytest.fixture(scope="module")
def client(clickhouse: ClickHouse) -> Client:
    client = Client(ClickHouseSettings(address=clickhouse.url, database=DATABASE))
    migrate(client)
    return client


def row_of(client: Client, topic: str, value: bytes | None, form: Format, partition: int) -> dict[str, Any]:
    """The row that a record becomes."""
    sample = Record(topic, partition, 41, APPENDED_MS, b"a-key", value, [("content-type", form.value.encode()), ("empty", b"")])
    lease = int(client.rows("SELECT toUnixTimestamp(now())")[0][0]) + 60
    block = Builder(TABLES[topic]).build([sample], Place("topic-id", partition, lease))
    Store(client, 20).insert(topic, block, f"{topic}:{partition}:{lease}")
    sql = f"SELECT * EXCEPT (_lease) FROM {DATABASE}.{TABLES[topic].name} WHERE _partition = {partition} ORDER BY _lease DESC LIMIT 1"
    row: dict[str, Any] = msgspec.json.decode(client.raw(sql, "JSONEachRow"))
    return row


@pytest.mark.parametrize("form", Format, ids=lambda form: form.name)
@pytest.mark.parametrize("topic", sorted(TABLES))
def test_a_sample_becomes_its_golden_row(client: Client, topic: str, form: Format) -> None:
    sample = (FOLDER / "samples" / f"{topic}.{ENDINGS[form]}").read_bytes()
    row = row_of(client, topic, sample, form, 1 if form is Format.JSON else 2)
    golden = msgspec.json.decode((FOLDER / "rows" / f"{topic}.json").read_bytes())
    assert row.pop("_headers") == {"content-type": form.value, "empty": ""}
    assert row.pop("_partition") in (1, 2)
    assert row == golden


@pytest.mark.parametrize("topic", sorted(TABLES))
@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe{", b"[1, 2]"], ids=["tombstone", "empty", "no-json", "no-object"])
def test_what_cannot_be_decoded_keeps_its_bytes_and_the_reason(client: Client, topic: str, value: bytes | None) -> None:
    sample = Record(topic, 3, 7, APPENDED_MS, None, value)
    lease = int(client.rows("SELECT toUnixTimestamp(now())")[0][0]) + 60
    Store(client, 20).insert(topic, Builder(TABLES[topic]).build([sample], Place("topic-id", 3, lease)), f"{topic}:{value!r}")
    wanted = "NULL" if value is None else f"unhex('{value.hex()}')"
    where = f"_partition = 3 AND _error != '' AND _raw IS NOT DISTINCT FROM {wanted}"
    (found,) = client.rows(f"SELECT count() FROM {DATABASE}.{TABLES[topic].name} WHERE {where}")
    assert found == (1,)
    assert 7 in Store(client, 20).present(Span(topic, "topic-id", 3, 0, 10))
