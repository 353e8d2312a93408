"""``millrace bench`` as a person calls it, on sizes that say nothing about speed: what it prints, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from millrace.workers.bench import archive, experiments, latency, throughput
from millrace.workers.bench.options import Options
from millrace.workers.cli import app
from tests.stack import Broker, ClickHouse

ONE_ROUND = ("--rounds", "1")
UNREACHABLE = 1_000_000.0


@pytest.fixture(autouse=True)
def places(broker: Broker, clickhouse: ClickHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a person who names both places, and waits less for a loop to be warm."""
    environment = {"KAFKA": broker.address, "CLICKHOUSE": clickhouse.url, "DATA": str(tmp_path), "KAFKA__PARTITIONS": "2"}
    for name, value in environment.items():
        monkeypatch.setenv(f"MILLRACE_{name}", value)
    monkeypatch.setattr(latency, "WARM_SECONDS", 0.5)


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments])


class Measured:
    """A benchmark that measures once: it misses its target, and then the same figures are taken to meet it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, *arguments: str) -> None:
        self._arguments = arguments
        self._compare: Callable[..., Any] = module.compare
        self._report: Any = None
        monkeypatch.setattr(module, "compare", self._once)

    def missed(self) -> dict[str, Any]:
        """The document, and exit code 1."""
        result = bench(*self._arguments, "--json")
        assert result.exit_code == 1, result.output
        assert result.stdout, result.stderr or result.exception
        document: dict[str, Any] = json.loads(result.stdout)
        assert document["met"] is False
        return document

    def met(self) -> str:
        """What a person reads, and exit code 0."""
        result = bench(*self._arguments)
        assert result.exit_code == 0, result.output
        assert "met" in result.stdout
        assert "MISSED" not in result.stdout
        return result.stdout

    def _once(self, *given: Any) -> Any:
        if self._report is None:
            self._report = self._compare(*given)
            return self._report
        return replace(self._report, met=True)


def test_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    call = ("inference", "--format", "msgpack", "--features", "vector", "--requests", "1000", *ONE_ROUND)
    monkeypatch.setattr(Options, "target_ratio", UNREACHABLE)
    measured = Measured(monkeypatch, throughput, *call)
    document = measured.missed()
    assert (document["encoding"], document["features"], document["model"], document["requests"]) == ("msgpack", "vector", "small", 1_000)
    for loop in ("bare", "inference"):
        rates = document[loop]
        assert rates["rounds"] == [rates["median"]]
        assert rates["microseconds"] == pytest.approx(1e6 / rates["median"], abs=0.01)
    assert document["ratio"] == pytest.approx(document["inference"]["median"] / document["bare"]["median"], abs=0.001)
    assert document["target_ratio"] == UNREACHABLE
    assert "small, msgpack, features by vector, 1,000 requests, 1 rounds" in measured.met()


@pytest.mark.slow
def test_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "TARGET_RATIO", 0.0)
    measured = Measured(monkeypatch, latency, "latency", "--rate", "40", "--seconds", "1", *ONE_ROUND)
    document = measured.missed()
    assert (document["rate"], document["seconds"], document["target_ratio"]) == (40, 1, 0.0)
    for loop in ("bare", "inference"):
        assert document[loop]["requests"] == 40
        assert 0 < document[loop]["p50_ms"] <= document[loop]["p99_ms"] <= document[loop]["p999_ms"]
    assert document["p99_ratio"] == pytest.approx(document["inference"]["p99_ms"] / document["bare"]["p99_ms"], abs=0.01)
    shown = measured.met()
    assert [line.split()[0] for line in shown.splitlines()[1:]] == ["bare", "inference", "p99"]


@pytest.mark.parametrize("unreachable", ["TARGET_ROWS", "TARGET_RATIO"])
def test_archive(monkeypatch: pytest.MonkeyPatch, unreachable: str) -> None:
    """It has two targets: each alone decides."""
    for name in ("TARGET_ROWS", "TARGET_RATIO"):
        monkeypatch.setattr(archive, name, 0)
    monkeypatch.setattr(archive, unreachable, 1_000_000_000)
    measured = Measured(monkeypatch, archive, "archive", "--rows", "20000")
    document = measured.missed()
    assert document["rows"] == 20_000
    assert document["archiver"] > 0
    assert document["raw"] > 0
    assert document["ratio"] == pytest.approx(document["archiver"] / document["raw"], rel=0.01, abs=0.001)
    assert document[unreachable.lower()] == 1_000_000_000
    assert "20,000 requests and predictions with 20 features" in measured.met()


def test_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few units are measured alone, so the ratio is met; the rate is not."""
    monkeypatch.setattr(experiments, "TARGET_EVENTS", UNREACHABLE)
    measured = Measured(monkeypatch, experiments, "experiments", "--units", "200", "--events", "1000")
    document = measured.missed()
    (cost,) = document["costs"]
    assert (cost["units"], document["ratio"], document["events"]) == (200, 1.0, 1_000)
    assert cost["events_per_second"] == document["events_per_second"] > 0
    assert cost["peak_bytes"] == document["peak_bytes"] < document["target_bytes"]
    assert "one partition, one experiment, three metrics, 1,000 events" in measured.met()


@pytest.mark.parametrize(
    "arguments",
    [
        ("inference", "--requests", "999"),
        ("latency", "--rate", "0"),
        ("archive", "--rows", "1"),
        ("experiments", "--units", "1"),
        ("inference", "--format", "x"),
    ],
)
def test_what_cannot_be_measured_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert bench(*arguments).exit_code == 2
