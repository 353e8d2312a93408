"""Does the real judge turn sealed sums into results, signals and a stopped plan, once each, though it is killed; and again the same?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from millrace.infra.kafka.control import Control
from millrace.infra.kafka.partition import partition_of
from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.settings import Settings
from millrace.schemas.event import from_ms
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Allocation, Analysis, Plan, Policy, State, Unit
from millrace.schemas.metric import Direction, Metric, Role
from millrace.schemas.result import Verdict
from millrace.schemas.topics import EXPERIMENTS, MOMENTS, POLICIES, RESULTS, SIGNALS, Topic
from millrace.schemas.wire import codec
from millrace.streams.judge.merge import Sealed
from millrace.workers.cli import app
from millrace.workers.replay import ROLES, replay
from millrace.workers.results import look_up
from tests.integration.harness import Rig, WorkerProcess
from tests.integration.harness.readback import commits, in_order
from tests.integration.harness.rig import JUDGE
from tests.judging import PAID, counted, experiment, published, sealed
from tests.stack import Broker, wait_until

REAL = "millrace.workers.judge"
ERRORS = Metric(name="errors", outcome="error", kind=Kind.PROPORTION, role=Role.GUARDRAIL, direction=Direction.DECREASE, limit=0.1)
PLAN = experiment(
    PAID,
    ERRORS,
    analysis=Analysis(stop_on_harm=True, minimal_units=50),
    allocation=Allocation(policy=Policy.THOMPSON, metric="paid", every_seconds=1),
    unit=Unit.REQUEST,
)


def tell(settings: Settings, topic: Topic, *events: Any) -> None:
    """Publish events of the experiment."""
    coded = codec(topic)
    publish(settings, [Outgoing(topic.name, b"e", coded.encode(event), coded.headers("x")) for event in events])


def events(settings: Settings, topic: Topic) -> list[Any]:
    return [codec(topic).decode(record.value, record.headers) for record in in_order(settings, topic)]


def arms(errors: int, partition: int, n: int = 1_000) -> Sealed:
    return sealed(
        {"paid": {"a": counted(n, n // 10), "b": counted(n, n // 9)}, "errors": {"a": counted(n, n // 10), "b": counted(n, errors)}},
        partition=partition,
    )


def units(settings: Settings, wanted: int) -> bool:
    found = look_up(settings, "e")
    return found is not None and found.units == wanted


@pytest.fixture
def rig(broker: Broker, tmp_path: Path) -> Rig:
    return Rig.on(broker, tmp_path, JUDGE, partitions=3).provision()


def test_sums_become_results_and_harm_stops_the_experiment(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = rig.settings
    tell(settings, EXPERIMENTS, PLAN)
    with WorkerProcess(rig, "before commit", 1) as doomed:
        doomed.wait_for("Assigned")
        tell(settings, MOMENTS, *published(arms(100, 0)), *published(arms(102, 1)))
        assert doomed.wait() == -9
    assert events(settings, RESULTS) == []
    with WorkerProcess(rig, program=REAL) as worker:
        wait_until(lambda: units(settings, 4_000), 60, "both partitions judged")
        tell(settings, MOMENTS, *published(arms(300, 2)))
        wait_until(lambda: units(settings, 6_000), 60, "the third partition judged")
        wait_until(lambda: len(in_order(settings, EXPERIMENTS)) == 2, 30, "the experiment stopped")
        worker.drain()

    newest: Plan | None = Control[Plan](settings, EXPERIMENTS).versions.newest("e")
    assert newest is not None
    assert (newest.version, newest.state) == (2, State.STOPPED)
    assert newest.conclusion.startswith("stopped by the rule guardrail: b harms errors")
    results = events(settings, RESULTS)
    assert [(one.time, one.units) for one in results] == sorted({(one.time, one.units) for one in results})
    assert (results[-1].decision.verdict, results[-1].decision.rule) == (Verdict.REJECT, "guardrail")
    assert [(one.kind, one.rule) for one in events(settings, SIGNALS) if one.kind == "guardrail"] == [("guardrail", "errors/b")]
    policies = events(settings, POLICIES)
    assert [one.version for one in policies] == list(range(1, len(policies) + 1))
    assert policies[0].offsets.keys() <= {"0", "1", "2"}
    delays = [
        (record.appended_ms - event.time.timestamp() * 1_000) for record, event in zip(in_order(settings, RESULTS), results, strict=True)
    ]
    assert max(delays) < 60_000
    assert results[0].time >= from_ms(min(record.appended_ms for record in in_order(settings, MOMENTS)))

    for name, value in rig.environment().items():
        monkeypatch.setenv(name, value)
    shown = CliRunner().invoke(app, ["experiments", "results", "e", "--json"])
    assert json.loads(shown.stdout)["id"] == results[-1].id
    table = CliRunner().invoke(app, ["experiments", "results", "e"]).stdout
    assert "decision: reject b, by the rule guardrail: b harms errors by more than 0.1" in table
    assert "BREACHED" in table

    report = replay(settings, ROLES["judge"])
    assert report.equal, report.first
    assert report.transactions == len(commits(settings)) > 0

    neighbour = next(name for name in map(str, range(100)) if partition_of(name, 3) == partition_of("e", 3))
    coded = codec(RESULTS)
    crowd = [replace(results[0], experiment=neighbour, time=from_ms(number)) for number in range(700)]
    publish(settings, [Outgoing(RESULTS.name, neighbour.encode(), coded.encode(one)) for one in crowd])
    assert look_up(settings, "e") == results[-1]
    assert look_up(settings, neighbour) == crowd[-1]
    assert look_up(settings, "unheard-of") is None
