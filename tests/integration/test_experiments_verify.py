"""Does ``millrace experiments verify`` see that stream and batch say the same, and each way in which they may not?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments.answers import arms, moments
from millrace.infra.clickhouse.migrate import migrate
from millrace.infra.kafka.clients import full_name
from millrace.infra.kafka.offsets import reset
from millrace.infra.kafka.publish import Outgoing, publish
from millrace.schemas.errors import Unavailable, UsageError
from millrace.schemas.metric import Role
from millrace.schemas.moments import PartitionMoments, from_sums, to_sums
from millrace.schemas.topics import ASSIGNMENTS, EXPERIMENTS, MOMENTS, OUTCOMES_BY_UNIT, RESULTS, Topic
from millrace.schemas.wire import codec
from millrace.streams.experiment.digest import digest
from millrace.workers.cli import app
from millrace.workers.commands.experiments.verify import rows
from millrace.workers.experiments_verify import Unequal, as_of, topics, verify_experiment
from tests.contract.experiments.scenario import EXPERIMENT, NOON, Scenario, metric, plan
from tests.integration.archive import archive_rig
from tests.integration.harness.rig import Rig
from tests.judging import judged, sealed
from tests.stack import Broker, ClickHouse

PARTITION, OFFSETS, ARCHIVED = 1, {"assignments": 3, "outcomes-by-unit": 2}, 4
PLAN = plan(metric("revenue", role=Role.PRIMARY), metric("orders"), segments={"os": ("ios",)})


@pytest.fixture(scope="module")
def rig(broker: Broker, clickhouse: ClickHouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Three units and two outcomes in ClickHouse, archived up to offset 4, of an experiment whose plan is recorded."""
    rig = archive_rig(broker, clickhouse, tmp_path_factory.mktemp("experiments-verify"))
    client = Client(rig.settings.clickhouse)
    migrate(client)
    tell(rig, EXPERIMENTS, EXPERIMENT, PLAN)
    names = [full_name(rig.settings, topic) for topic in (ASSIGNMENTS, OUTCOMES_BY_UNIT)]
    reset(rig.settings, "archiver", names, ARCHIVED)
    infos = topics(rig.settings)
    scenario = Scenario(client, PLAN, infos[ASSIGNMENTS].topic_id, infos[OUTCOMES_BY_UNIT].topic_id)
    for unit, variant in (("u1", "a"), ("u2", "b"), ("u3", "b"), ("u4", "b")):
        scenario.meets(unit, variant, partition=PARTITION, segments={"os": "ios"})
    for at, value in enumerate((3.0, 4.0, 5.0)):
        scenario.happens("u1", value, at, partition=PARTITION)
    scenario.as_of()
    yield rig
    client.close()


def tell(rig: Rig, topic: Topic, key: str, event: Any) -> None:
    """Publish an event."""
    coded = codec(topic)
    publish(rig.settings, [Outgoing(topic.name, key.encode(), coded.encode(event), coded.headers(key))])


def truth(rig: Rig) -> list[PartitionMoments]:
    """What a stream would say, sealed: the batch answer itself."""
    client = Client(rig.settings.clickhouse)
    client.use_database()
    question = as_of([PLAN], topics(rig.settings), {PARTITION: OFFSETS})
    fixed: dict[str, Any] = {
        "id": "x",
        "experiment": EXPERIMENT,
        "plan_version": 1,
        "partition": PARTITION,
        "time": NOON,
        "offsets": OFFSETS,
    }
    told = [
        PartitionMoments(
            metric=one.name,
            digest=digest(PLAN, one),
            moments={arm: to_sums(sums) for (_, arm), sums in moments(client, question, one).items()},
            **fixed,
        )
        for one in PLAN.metrics
    ]
    return [*told, PartitionMoments(arms={arm: seen for (_, arm), seen in arms(client, question, [PLAN]).items()}, **fixed)]


def emit(rig: Rig, *records: PartitionMoments) -> None:
    """Publish moments, in this order and on one partition."""
    for record in records:
        tell(rig, MOMENTS, EXPERIMENT, record)


def test_an_experiment_without_moments_cannot_be_verified(rig: Rig) -> None:
    """Before anything is sealed: pytest runs a file's tests in their order."""
    with pytest.raises(UsageError, match="no experiment is called 'unheard-of'; there are: checkout"):
        verify_experiment(rig.settings, "unheard-of", 0)
    emit(rig, truth(rig)[0])
    with pytest.raises(Unavailable, match="no moments yet"):
        verify_experiment(rig.settings, EXPERIMENT, 0)


def test_what_is_equal_is_called_equal(rig: Rig) -> None:
    told = truth(rig)
    assert told[0].moments["a"][:3] == ("1", "7", "49")
    emit(rig, *told, replace(told[0], moments={"a": ("9",) * 9}))  # what no seal follows does not count
    found = verify_experiment(rig.settings, EXPERIMENT, 0)
    assert found.equal
    assert (found.offsets, found.metrics) == ({PARTITION: OFFSETS}, ["revenue", "orders"])
    assert found.compared == (4 + 2) * 9 + 2 * 10
    assert rows(found) == [[name, variant, "equal"] for name in ("revenue", "orders", "(arms)") for variant in ("a", "b")]


def test_each_integer_that_differs_is_named(rig: Rig) -> None:
    told = truth(rig)
    wrong = dict(told[0].moments) | {"a|os=ios": ("1", "8", *told[0].moments["a"][2:]), "c": ("1", *["0"] * 8)}
    del wrong["b"]
    seal = replace(told[2], arms={**told[2].arms, "b": replace(told[2].arms["b"], late=5, segments={})})
    emit(rig, replace(told[0], moments=wrong), told[1], seal)
    found = verify_experiment(rig.settings, EXPERIMENT, 0)
    assert found.unequal == [
        Unequal(PARTITION, "revenue", "a|os=ios", "total", 8, 7),
        Unequal(PARTITION, "revenue", "b", "n", 0, 2),
        Unequal(PARTITION, "revenue", "c", "n", 1, 0),
        Unequal(PARTITION, "", "b", "late", 5, 0),
        Unequal(PARTITION, "", "b", "os=ios", 0, 2),
    ]
    assert rows(found)[:3] == [
        ["revenue", "a", "total of a|os=ios on 1: 8 is not 7"],
        ["revenue", "b", "n of b on 1: 0 is not 2"],
        ["revenue", "c", "n of c on 1: 1 is not 0"],
    ]


def test_the_newest_sealed_set_counts_with_metrics_that_did_not_change(rig: Rig) -> None:
    told = truth(rig)
    emit(rig, told[0], told[2])
    assert verify_experiment(rig.settings, EXPERIMENT, 0).equal


def test_records_that_the_archive_lacks_are_named(rig: Rig) -> None:
    beyond = {"assignments": 3, "outcomes-by-unit": 9}
    emit(rig, *(replace(one, offsets=beyond) for one in truth(rig)))
    with pytest.raises(Unavailable, match=r"ClickHouse lacks, after 0 s, outcomes-by-unit/1 offsets 4 to 8\. Does the role archiver run"):
        verify_experiment(rig.settings, EXPERIMENT, 0)


def test_a_metric_whose_sums_are_of_another_definition_is_not_compared(rig: Rig) -> None:
    told = truth(rig)
    emit(rig, replace(told[0], digest="of-another-plan"), *told[1:])
    with pytest.raises(Unavailable, match="metric revenue on partition 1 was folded by another definition"):
        verify_experiment(rig.settings, EXPERIMENT, 0)


def test_a_command_tells_it_and_exits_accordingly(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    emit(rig, *truth(rig))
    for name, value in rig.environment().items():
        if name.startswith("MILLRACE_"):
            monkeypatch.setenv(name, value)
    answer = CliRunner().invoke(app, ["experiments", "verify", EXPERIMENT, "--sql"])
    assert answer.exit_code == 0, answer.output
    assert "74 integers compared" in answer.output
    assert "partitions below the offsets: 1: assignments 3, outcomes-by-unit 2" in answer.output
    assert answer.output.count("\n-- metric ") == 2
    emit(rig, replace(truth(rig)[1], moments={}), truth(rig)[2])
    answer = CliRunner().invoke(app, ["experiments", "verify", EXPERIMENT, "--json"])
    assert answer.exit_code == 1
    assert json.loads(answer.output)["equal"] is False
    assert "statements" not in json.loads(answer.output)


def test_another_policy_is_evaluated_on_the_same_records(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three decisions are too few for a number, and said to be."""
    emit(rig, *truth(rig))
    for name, value in rig.environment().items():
        if name.startswith("MILLRACE_"):
            monkeypatch.setenv(name, value)
    answer = CliRunner().invoke(app, ["experiments", "ope", EXPERIMENT, "--metric", "revenue", "--target", '{"b": 1}', "--json"])
    assert answer.exit_code == 1, answer.output
    told = json.loads(answer.output)
    assert (told["decisions"], told["target"], told["offsets"]) == ({"a": 1, "b": 2}, {"a": 0.0, "b": 1.0}, {"1": OFFSETS})
    assert told["mean_reward"] == pytest.approx(7 / 3)
    assert told["estimates"]["ips"] == {"type": "cannot_tell", "reason": "3 records are too few: at least 100 are needed"}
    shown = CliRunner().invoke(app, ["experiments", "ope", EXPERIMENT, "--metric", "revenue"]).output
    assert "ips is refused: 3 records are too few" in shown
    assert isinstance(CliRunner().invoke(app, ["experiments", "ope", EXPERIMENT]).exception, UsageError)


def test_a_report_is_made_of_the_newest_result(rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of one in whose offsets the archive has everything; of one that the archive lags behind there is none, and that is said."""
    told = truth(rig)
    sums = {one.metric: {arm: from_sums(sums) for arm, sums in one.moments.items()} for one in told[:-1]}
    result = replace(judged(PLAN, sealed(sums, told[-1].arms)), offsets={str(PARTITION): OFFSETS})
    tell(rig, RESULTS, EXPERIMENT, result)
    for name, value in rig.environment().items():
        if name.startswith("MILLRACE_"):
            monkeypatch.setenv(name, value)
    html, text = tmp_path / "report.html", tmp_path / "report.md"
    wanted = ["experiments", "report", EXPERIMENT, "--wait", "0"]
    answer = CliRunner().invoke(app, [*wanted, "--html", str(html), "--markdown", str(text), "--json"])
    assert answer.exit_code == 0, answer.output
    assert "Offsets covered" in html.read_text()
    assert f"| {PARTITION} | outcomes-by-unit | 2 |" in text.read_text()
    report = json.loads(answer.output)
    assert [point["units"] for point in report["points"][-2:]] == [1, 2]
    assert report.get("findings", []) == []
    tell(rig, RESULTS, EXPERIMENT, replace(result, offsets={str(PARTITION): {"assignments": 3, "outcomes-by-unit": 9}}))
    with pytest.raises(Unavailable, match="outcomes-by-unit/1 offsets 4 to 8"):
        CliRunner().invoke(app, wanted, catch_exceptions=False)
