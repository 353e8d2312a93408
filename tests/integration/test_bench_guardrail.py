"""``millrace bench guardrail`` as a person calls it, with few units: what it tells of planted harm, and that its parts add up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from millrace.infra.settings import Settings
from millrace.workers.bench import guardrail
from millrace.workers.cli import app
from tests.stack import Broker


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", "guardrail", *arguments])


def test_harm_is_planted_and_stopped(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured once, told twice: what a person reads is of the same measurement as the document."""
    monkeypatch.setenv("MILLRACE_KAFKA", broker.address)
    monkeypatch.setenv("MILLRACE_DATA", str(tmp_path))
    monkeypatch.setattr(guardrail, "HEALTHY_UNITS", 300)
    measured: list[guardrail.Stopped] = []
    measure = guardrail.measure

    def once(placed: Settings, planted: guardrail.Harmful, tell: Callable[[str], None]) -> guardrail.Stopped:
        measured.extend([] if measured else [measure(placed, planted, tell)])
        return replace(measured[0], harm=planted.harm)

    monkeypatch.setattr(guardrail, "measure", once)
    result = bench("--harm", "0.9", "--rate", "300", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["failing"], document["units_per_second"]) == (0.02, 300)
    (one,) = document["stopped"]
    assert 0 < one["records_needed"] <= one["records"]
    assert one["seconds_added"] > 0
    assert one["seconds"] == pytest.approx(one["seconds_needed"] + one["seconds_added"], abs=0.002)
    assert one["seconds_needed"] < one["signal_seconds"]
    assert one["p_value"] < 0.05
    shown = bench("--harm", "0.3", "--harm", "0.9", "--rate", "300").stdout.splitlines()
    assert shown[0] == "2.0% of the units fail, then more of the treatment's, at 300 units/s"
    assert [line.split(":")[0].split() for line in shown[1::2]] == [["30.0%", "fail"], ["90.0%", "fail"]]
    assert f"90.0% fail: the evidence needed {one['records_needed']:,} records, {one['seconds_needed']:.2f} s" in shown[3]
    assert shown[4].split() == ["the", "stream", "added", f"{one['seconds_added']:.3f}", "s"]


def test_a_share_above_all_is_wrong_usage() -> None:
    assert bench("--harm", "2").exit_code == 2
