"""Is the migrated database what the list of tables says, and can analysts read it?"""

from __future__ import annotations

import pytest

from millrace.infra.clickhouse.client import Client, Refusal
from millrace.infra.clickhouse.migrate import Migration, migrate, migrations
from millrace.infra.clickhouse.views import View, views
from millrace.infra.settings import ClickHouseSettings, Secret
from millrace.schemas.errors import Stop
from millrace.schemas.tables import DEDUPLICATION_WINDOW_BLOCKS, ENGINE, MARKS, TABLES
from tests.stack import ClickHouse

DATABASE = "millrace"


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
