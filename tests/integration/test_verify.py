"""Does ``millrace verify`` see what is wrong, and nothing else? And does ``millrace sql`` answer?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported, not in its __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from msgspec.structs import replace

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.store import Store
from millrace.infra.kafka.clients import describe, full_name
from millrace.infra.kafka.scan import Chunk, Dropped, Scan
from millrace.infra.kafka.whole import read_whole
from millrace.schemas.topics import ALLOWANCES, OUTCOMES, REQUESTS, Kind
from millrace.workers.verify import Checked, Comparison, verify
from tests.integration.archive import Load, archive_rig, archiver, settle
from tests.integration.harness.rig import Rig
from tests.stack import Broker, ClickHouse, wait_until


@pytest.fixture(scope="module")
def rig(broker: Broker, clickhouse: ClickHouse, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """A few hundred records that are all archived."""
    rig = archive_rig(broker, clickhouse, tmp_path_factory.mktemp("verify"))
    with archiver(rig):
        with Load(rig.settings, seed=3) as load:
            load.reach(600)
        settle(rig)
    return rig


@pytest.fixture
def client(rig: Rig) -> Client:
    return Client(rig.settings.clickhouse)


def partition_zero(rig: Rig) -> Checked:
    return next(one for one in verify(rig.settings, 0).partitions if (one.topic, one.partition) == ("requests", 0))


def kept(client: Client, number: int) -> list[int]:
    """Some offsets of the middle of requests/0."""
    sql = f"SELECT _offset FROM {client.database}.requests WHERE _partition = 0 ORDER BY _offset LIMIT {number} OFFSET 50"
    return [row[0] for row in client.rows(sql)]


def copy(client: Client, offset: int, to: int) -> None:
    """Insert the row of an offset again, as another offset."""
    table = f"{client.database}.requests"
    client.command(
        f"INSERT INTO {table} SELECT * REPLACE ({to} AS _offset, now() + 60 AS _lease) FROM {table} AS old"
        f" WHERE old._partition = 0 AND old._offset = {offset} LIMIT 1",
        async_insert=0,
        insert_deduplication_token=f"copy-{offset}-{to}",
        prefer_column_name_to_alias=1,
    )


def test_a_duplicated_row_is_named(rig: Rig, client: Client) -> None:
    (offset,) = kept(client, 1)
    copy(client, offset, offset)
    found = partition_zero(rig)
    assert (found.missing, found.duplicated, found.unknown) == (0, 1, 0)
    assert found.where["duplicated"][0].first == offset
    client.command(f"DELETE FROM {client.database}.requests WHERE _partition = 0 AND _offset = {offset}", lightweight_deletes_sync=2)
    found = partition_zero(rig)
    assert (found.missing, found.duplicated, found.unknown) == (1, 0, 0)
    assert found.where["missing"][0].first == offset


def test_a_row_that_no_committed_record_explains_is_named(rig: Rig, client: Client) -> None:
    offsets = {row[0] for row in client.rows(f"SELECT _offset FROM {client.database}.requests WHERE _partition = 0")}
    gap = next(offset for offset in range(max(offsets)) if offset not in offsets and offset not in range(60))
    before = partition_zero(rig).unknown
    copy(client, max(offsets), gap)
    assert partition_zero(rig).unknown == before + 1


def test_rows_that_the_log_no_longer_has_are_not_judged(rig: Rig, broker: Broker) -> None:
    place = TopicPartition(f"{rig.tree['topic_prefix']}outcomes", 0, 100)
    client = AdminClient({"bootstrap.servers": broker.address})
    client.delete_records([place])[place].result(10)
    found = next(one for one in verify(rig.settings, 0).partitions if (one.topic, one.partition) == ("outcomes", 0))
    assert found.start == 100
    assert found.clean


def configure(client: AdminClient, kind: ResourceType, name: str, **values: object) -> None:
    """Set configuration keys, written with underscores."""
    entries = [ConfigEntry(key.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET) for key, value in values.items()]
    resource = ConfigResource(kind, name, incremental_configs=entries)
    client.incremental_alter_configs([resource])[resource].result(10)


def compact(broker: Broker, scan: Scan, topic: str, records: int) -> None:
    """Let the broker compact partition 0 of a topic that has so many records, and wait until fewer are left."""
    client, producer = AdminClient({"bootstrap.servers": broker.address}), Producer({"bootstrap.servers": broker.address})
    (node,) = client.list_topics(timeout=10).brokers
    configure(client, ResourceType.BROKER, str(node), log_cleaner_backoff_ms=100)
    configure(client, ResourceType.TOPIC, topic, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0)
    producer.produce(topic, b"{}", b"begins a new segment: the one before may be compacted", 0)
    producer.flush(10)
    span = {(topic, 0): (0, records)}
    wait_until(lambda: sum(len(read.offsets) for read in scan.offsets(span, 1_000) if isinstance(read, Chunk)) < records, 60, "compacted")


def test_rows_whose_records_were_compacted_away_are_not_unknown(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """No topic is compacted yet: one that is kept whole stands in for it, first as what it will be, then as what it is."""
    rig = archive_rig(broker, clickhouse, tmp_path)
    name = full_name(rig.settings, ALLOWANCES)
    place, count = (name, 0), 20
    producer = Producer({"bootstrap.servers": broker.address})
    with archiver(rig):
        for number in range(count):
            producer.produce(name, b"%d" % number, b"one key", 0)
        producer.flush(10)
        settle(rig)
    scan, store = Scan(rig.settings), Store(Client(rig.settings.clickhouse), 20)
    try:
        compact(broker, scan, name, count)
        topic_id = describe(rig.settings, [name])[name].topic_id
        (seen,) = Comparison(scan, store, {place: (replace(ALLOWANCES, kind=Kind.COMPACTED), topic_id)}).check({place: count})
        (strict,) = Comparison(scan, store, {place: (ALLOWANCES, topic_id)}).check({place: count})
    finally:
        scan.close()
    assert (seen.rows, seen.clean) == (count, True)
    assert 0 < seen.records < count
    assert (strict.missing, strict.unknown) == (0, count - strict.records)


@pytest.fixture
def scan(rig: Rig) -> Iterator[Scan]:
    made = Scan(rig.settings)
    yield made
    made.close()


class Watched:
    """A consumer whose assignments are written down."""

    def __init__(self, consumer: Any) -> None:
        self.assigned: list[Any] = []
        self._consumer = consumer

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned.append(places)
        self._consumer.assign(places)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def test_all_partitions_are_read_at_the_same_time_and_come_whole_in_chunks(rig: Rig, scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, each would wait for the fetch in which the one before learnt that it is at its end."""
    infos = describe(rig.settings, [full_name(rig.settings, topic) for topic in (REQUESTS, OUTCOMES)])
    places = [(name, number) for name, info in infos.items() for number in range(info.partitions)]
    starts, ends = scan.starts(places), scan.ends(places)
    consumer = Watched(scan._consumer)
    monkeypatch.setattr(scan, "_consumer", consumer)
    found: dict[tuple[str, int], list[Chunk]] = {place: [] for place in places}
    for read in scan.offsets({place: (starts[place], ends[place]) for place in places}, 7):
        assert isinstance(read, Chunk)
        found[read.place].append(read)
    assert len(consumer.assigned) == 1
    records = [record for topic in (REQUESTS, OUTCOMES) for record in read_whole(rig.settings, topic)]
    assert len(records) > 400
    for place, chunks in found.items():
        assert [starts[place], *(chunk.high for chunk in chunks)] == [*(chunk.low for chunk in chunks), ends[place]]
        assert all(len(chunk.offsets) <= 7 for chunk in chunks)
        wanted = [record.offset for record in records if (full_name(rig.settings, record.topic), record.partition) == place]
        assert [int(offset) for chunk in chunks for offset in chunk.offsets] == wanted


def test_a_log_that_drops_what_is_being_read_is_told_apart_and_the_others_come_whole(rig: Rig, scan: Scan) -> None:
    gone, kept = (full_name(rig.settings, OUTCOMES), 0), (full_name(rig.settings, REQUESTS), 1)
    starts, ends = scan.starts([gone, kept]), scan.ends([gone, kept])
    assert starts[gone] > 0
    read = list(scan.offsets({gone: (0, ends[gone]), kept: (0, ends[kept])}, 1_000_000))
    assert Dropped(gone) in read
    assert [one.high for one in read if isinstance(one, Chunk)] == [ends[kept]]
    assert [one.place for one in scan.offsets({gone: (starts[gone], ends[gone])}, 1_000_000)] == [gone]


def command(rig: Rig, *arguments: str) -> tuple[int, Any]:
    """Run the command as a user would; its exit code and its JSON."""
    done = subprocess.run([sys.executable, "-m", "millrace", *arguments], env=rig.environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_command_says_what_it_compared_and_exits_with_one_where_something_is_wrong(rig: Rig, client: Client) -> None:
    (offset,) = kept(client, 1)
    copy(client, offset + 1, offset + 1)
    code, report = command(rig, "verify", "--json", "--wait", "1")
    assert code == 1
    assert report["clean"] is False
    assert report["duplicated"] >= 1
    assert report["records"] > 500


@pytest.mark.parametrize(
    ("statement", "code", "said"),
    [
        (["--admin", "SELEC 1"], 2, "Syntax error"),
        (["--admin", "SELECT nothing FROM v_requests"], 2, "nothing"),
        (["SELECT count() FROM requests"], 2, "An analyst reads views: SHOW TABLES lists them"),
        (["--admin", "SELECT throwIf(1)"], 1, "throwIf"),
    ],
)
def test_sql_tells_a_wrong_statement_from_one_that_failed(rig: Rig, statement: list[str], code: int, said: str) -> None:
    asked = [sys.executable, "-m", "millrace", "sql", *statement]
    done = subprocess.run(asked, env=rig.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_sql_answers_as_json(rig: Rig, client: Client) -> None:
    code, rows = command(rig, "sql", "--admin", "--json", "SELECT count() AS n FROM requests")
    assert (code, rows) == (0, [{"n": client.rows(f"SELECT count() FROM {client.database}.requests")[0][0]}])
