"""Is the migrated database what the list of tables says, and can analysts read it?"""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.infra.clickhouse.blocks import Builder, Place
from millrace.infra.clickhouse.client import Client, Refusal
from millrace.infra.clickhouse.migrate import Migration, migrate, migrations
from millrace.infra.clickhouse.store import Store
from millrace.infra.clickhouse.view import View
from millrace.infra.clickhouse.views import views
from millrace.infra.settings import ClickHouseSettings, Secret
from millrace.schemas.errors import Stop
from millrace.schemas.record import Record
from millrace.schemas.tables import DEDUPLICATION_WINDOW_BLOCKS, ENGINE, MARKS, TABLES
from tests.stack import ClickHouse

DATABASE = "millrace"
PLAN_OF_BEFORE = Path(__file__).parents[1] / "golden" / "samples" / "before" / "experiments.json"


@pytest.fixture(scope="module")
def client(clickhouse: ClickHouse) -> Client:
    client = Client(ClickHouseSettings(address=clickhouse.url, database=DATABASE))
    migrate(client)
    return client


@pytest.fixture(scope="module")
def analyst(client: Client, clickhouse: ClickHouse) -> Client:
    return Client(ClickHouseSettings(address=clickhouse.url, database=DATABASE, user="analyst", password=Secret("")))


@pytest.mark.parametrize("topic", sorted(TABLES))
def test_a_migrated_table_has_the_columns_of_its_event(client: Client, topic: str) -> None:
    table = TABLES[topic]
    sql = f"SELECT name, type, comment FROM system.columns WHERE database = '{DATABASE}' AND table = '{table.name}' ORDER BY position"
    wanted = [(c.name, c.type, c.comment) for c in table.columns] + [(m.name, m.type, m.comment) for m in MARKS]
    assert client.rows(sql) == wanted, "the event has changed: write a migration that changes the table"


@pytest.mark.parametrize("topic", sorted(TABLES))
def test_a_migrated_table_is_kept_and_deduplicated_as_stated(client: Client, topic: str) -> None:
    table = TABLES[topic]
    sql = (
        "SELECT engine, sorting_key, partition_key, comment, create_table_query FROM system.tables"
        f" WHERE database = '{DATABASE}' AND name = '{table.name}'"
    )
    ((engine, order, partition, comment, text),) = client.rows(sql)
    assert (engine, order, partition, comment) == (ENGINE, ", ".join(table.order), "toYYYYMM(_appended)", table.topic.summary)
    assert f"non_replicated_deduplication_window = {DEDUPLICATION_WINDOW_BLOCKS}" in text
    assert "CONSTRAINT lease CHECK now() <= _lease" in text
    assert all(f"INDEX {name}_lookup {name}" in text for name in table.indexed)


def test_migrating_again_does_nothing(client: Client) -> None:
    assert migrate(client) == []


def test_every_statement_may_run_again(client: Client) -> None:
    for migration in migrations():
        for statement in migration.statements(DATABASE):
            client.command(statement)


def test_a_plan_of_before_says_in_its_new_columns_what_its_bytes_mean(clickhouse: ClickHouse) -> None:
    """A row that stood there when the columns came is as one whose record, of the same bytes, comes now."""
    old = Client(ClickHouseSettings(address=clickhouse.url, database="before"))
    first = [migration for migration in migrations() if migration.number <= 2]
    old.command("CREATE DATABASE before")
    for statement in [statement for migration in first for statement in migration.statements("before")]:
        old.command(statement)
    fields = "name, version, salt, variants, overrides, _topic_id, _partition, _offset, _lease"
    values = "'checkout', 1, 's', '[]', {}, 'topic-id', 0, 6, now() + 60"
    old.command(f"INSERT INTO before.experiments ({fields}) SELECT {values.replace('{}', 'map()')}", async_insert=0)
    migrate(old)
    lease = int(old.rows("SELECT toUnixTimestamp(now())")[0][0]) + 60
    record = Record("experiments", 0, 7, 0, None, PLAN_OF_BEFORE.read_bytes())
    Store(old, 20).insert("experiments", Builder(TABLES["experiments"]).build([record], Place("topic-id", 0, lease)), "before")
    came = "unit, layer, holdout, ramp, target_units, spans, allocation, metrics, segments, analysis, created, started, conclusion"
    stood, comes = old.rows(f"SELECT {came} FROM before.experiments ORDER BY _offset")
    assert stood == comes


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_statements_are_cut_at_line_ends_only() -> None:
    text = "-- a comment;\nCREATE TABLE {database}.t (a String COMMENT 'one; two') ENGINE = {engine};\n\nSELECT 1;\n"
    assert Migration(1, "x", text).statements("d") == [
        f"CREATE TABLE d.t (a String COMMENT 'one; two') ENGINE = {ENGINE}",
        "SELECT 1",
    ]


def test_a_database_of_a_newer_version_is_left_alone(clickhouse: ClickHouse) -> None:
    newer = Client(ClickHouseSettings(address=clickhouse.url, database="newer"))
    migrate(newer)
    newer.command("INSERT INTO newer.migrations (number, name, digest) SELECT 9999, 'later', 'x'", async_insert=0)
    with pytest.raises(Stop, match="upgrade millrace"):
        migrate(newer)


@pytest.mark.parametrize("view", views(DATABASE), ids=lambda view: view.name)
def test_an_analyst_reads_every_view_and_is_told_what_each_column_means(analyst: Client, view: View) -> None:
    sql = f"SELECT name, type, comment FROM system.columns WHERE database = '{DATABASE}' AND table = '{view.name}' ORDER BY position"
    assert analyst.rows(sql) == list(view.columns)
    assert [name for name, _, comment in view.columns if not comment] == []
    assert analyst.rows(f"SELECT * FROM {DATABASE}.{view.name} LIMIT 1") == []


@pytest.mark.parametrize("topic", sorted(TABLES))
def test_every_table_has_a_view_and_no_analyst_reads_the_table(analyst: Client, topic: str) -> None:
    table = TABLES[topic]
    assert f"v_{table.name}" in [view.name for view in views(DATABASE)]
    with pytest.raises(Refusal) as refused:
        analyst.rows(f"SELECT count() FROM {DATABASE}.{table.name}")
    assert refused.value.code == 497
