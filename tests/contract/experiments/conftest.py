"""One database for all scenarios: each has topics of its own in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.migrate import migrate
from millrace.infra.settings import ClickHouseSettings
from tests.stack import ClickHouse


@pytest.fixture(scope="package")
def client(clickhouse: ClickHouse) -> Iterator[Client]:
    """As millrace itself; names mean the database that analysts may read, which other tests find empty again."""
    client = Client(ClickHouseSettings(address=clickhouse.url, database="millrace"))
    migrate(client)
    client.use_database()
    yield client
    for table in ("assignments", "outcomes_by_unit"):
        client.command(f"TRUNCATE TABLE millrace.{table}")


@pytest.fixture(scope="package")
def analyst(clickhouse: ClickHouse, client: Client) -> Client:
    """As an analyst, who reads views and sets nothing."""
    return Client(ClickHouseSettings(address=clickhouse.url, database="millrace", user="analyst"))
