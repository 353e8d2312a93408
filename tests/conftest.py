"""Places shared by the whole test run: started at first use, one of each, ended with the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from millrace.infra.telemetry import InternalEvent, observed
from tests.stack import Broker, ClickHouse


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real Kafka broker on ports of its own; a test that stops or kills it starts it again."""
    server = Broker(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """A real ClickHouse endpoint on a port of its own; a test that stops or kills it starts it again."""
    server = ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def expected_failures() -> list[InternalEvent]:
    """Taken by a test in which internal failures are meant to happen: they are collected here instead of failing it."""
    return []


@pytest.fixture(autouse=True)
def no_swallowed_failure(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which an internal failure was told to telemetry and then swallowed."""
    expected = "expected_failures" in request.fixturenames
    seen: list[InternalEvent] = request.getfixturevalue("expected_failures") if expected else []
    with observed(lambda slot, event: seen.append(event) if event.FAILURE else None):
        yield
    if seen and not expected:
        pytest.fail(f"internal failures were swallowed: {seen}")
