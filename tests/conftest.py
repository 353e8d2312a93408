"""Places shared by the whole test run: started at first use, one of each, ended with the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from millrace.infra.embedded import kafka
from millrace.infra.telemetry import InternalEvent, observed
from tests.stack import Broker, ClickHouse

# A busy machine is slow by chance, and a new seed finds something by chance: `make test` must do neither. `make test-all` searches.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("search", settings.get_profile("steady"), derandomize=False)
settings.load_profile("steady")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fetch the broker's jars once, before several processes of one run would do so at the same time."""
    if getattr(session.config.option, "numprocesses", None) and not hasattr(session.config, "workerinput"):
        kafka.classpath()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for processes goes first: with several files at a time, what is short and computes fills the gaps at the end."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


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
