"""The URL under test: an embedded endpoint of this session, or ``MILLRACE_TEST_CLICKHOUSE``."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from tests.contract.clickhouse.endpoint import Endpoint, expect


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An embedded endpoint with the default settings."""
    with Endpoint(tmp_path_factory.mktemp("endpoint") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def url(request: pytest.FixtureRequest) -> str:
    """Where ClickHouse's HTTP interface is."""
    given = os.environ.get("MILLRACE_TEST_CLICKHOUSE")
    return given or str(request.getfixturevalue("endpoint").url)


@pytest.fixture
def database(url: str) -> Iterator[str]:
    """An empty database of this test alone."""
    name = f"contract_{uuid.uuid4().hex[:12]}"
    expect(url, f"CREATE DATABASE {name}")
    yield name
    expect(url, f"DROP DATABASE {name}")
