"""Is the batch answer what the definition says, over logs with everything in them that may go wrong?"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments import answers
from millrace.infra.kafka.clients import TopicInfo
from millrace.schemas.assignment import Assignment
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Analysis, Plan, State, Unit, Variant
from millrace.schemas.metric import Aggregation, Metric, Role, Source
from millrace.schemas.moments import Arm, to_sums
from millrace.schemas.outcome import UnitOutcome
from millrace.schemas.record import Record
from millrace.schemas.topics import ASSIGNMENTS, OUTCOMES_BY_UNIT
from millrace.workers.experiments_verify import as_of
from tests.contract.experiments.scenario import EXPERIMENT, NOON, insert
from tests.oracle import truth

MINUTE_MS = 60_000
NAMES = ("paid", "visit", "seconds")
VALUES = (0.0, 0.5, -1.5, 2.5, 0.015, 1e-9, 123.456789, -7.0, 1e15, -1e15)
PARTITIONS = (0, 3)
SEEDS = 12
RECORDS = 300


def metrics(chance: random.Random) -> tuple[Metric, ...]:
    """One of each kind, with everything else as it falls."""

    def one(name: str, kind: Kind, **more: Any) -> Metric:
        return Metric(
            name=name,
            outcome=chance.choice(NAMES),
            kind=kind,
            role=chance.choice((Role.PRIMARY, Role.SECONDARY)),
            resolution=chance.choice((1.0, 0.01, 1e-6, 1e-9, 0.3)),
            window_seconds=chance.choice((0.5, 900.0, 3_600.0, 86_400.0)),
            **more,
        )

    counted = Source(outcome=chance.choice(NAMES), aggregation=chance.choice(list(Aggregation)), cap=chance.choice((None, 3.0)))
    return (
        one("mean", Kind.MEAN, aggregation=chance.choice(list(Aggregation)), cap=chance.choice((None, 2.5, 1e3))),
        one("before", Kind.MEAN, aggregation=chance.choice((Aggregation.SUM, Aggregation.COUNT, Aggregation.MAX)), covariate_days=2),
        one("any", Kind.PROPORTION, covariate_days=chance.choice((0, 1, 5))),
        one("per", Kind.RATIO, aggregation=chance.choice(list(Aggregation)), denominator=counted),
        one("median", Kind.QUANTILE),
    )


def versions(chance: random.Random) -> list[Plan]:
    """A draft without all metrics, then running, then with other weights and roles, and perhaps stopped so as to close within the logs."""
    found = metrics(chance)
    written = NOON - timedelta(days=chance.choice((1, 2, 10)), hours=chance.randrange(SEEDS))
    draft = Plan(
        name=EXPERIMENT,
        version=1,
        state=State.DRAFT,
        time=written,
        created=written,
        salt="s",
        variants=(Variant(name="a"), Variant(name="b", weight=0.5), Variant(name="c", weight=0.25)),
        unit=chance.choice((Unit.UNIT, Unit.UNIT, Unit.REQUEST)),
        metrics=found[:1],
        segments={"os": ("ios",), "country": ("DE",)},
        analysis=Analysis(lateness_seconds=chance.choice((0.0, 60.0, 3_600.0, 1e6))),
    )
    running = replace(draft, version=2, state=State.RUNNING, metrics=found, time=written + timedelta(hours=5))
    roles = tuple(replace(metric, role=Role.PRIMARY) for metric in found)
    later = replace(running, version=3, metrics=roles, variants=(*draft.variants[:2], Variant(name="c", weight=2.0)))
    closes_after = max(metric.window_seconds for metric in found[:4]) + draft.analysis.lateness_seconds + 86_400
    stopped = replace(later, version=4, state=State.STOPPED, time=NOON + timedelta(hours=2, seconds=-closes_after))
    return [draft, running, later, *([stopped] if chance.random() < 0.3 else [])]


def logs(chance: random.Random, count: int) -> tuple[list[Record], list[Record]]:
    """The two logs of one partition: in the order of append, give or take; event times go anywhere."""
    assignments: list[Record] = []
    outcomes: list[Record] = []
    appended_ms = int(NOON.timestamp() * 1_000)
    for _ in range(count):
        appended_ms += chance.choice((0, 1, 500, MINUTE_MS, 5 * MINUTE_MS)) if chance.random() < 0.99 else 5 * 86_400_000
        unit = f"u{chance.randrange(12)}"
        told_ms = appended_ms - chance.choice((0, 0, 0, 700))
        time = NOON + timedelta(milliseconds=appended_ms - NOON.timestamp() * 1_000, microseconds=chance.randrange(-999, 999))
        if chance.random() < 0.25:
            assignments.append(Record("assignments", 0, len(assignments), told_ms, None, None, event=assigned(chance, unit, time)))
        else:
            outcomes.append(Record("outcomes-by-unit", 0, len(outcomes), told_ms, None, None, event=happened(chance, unit, time)))
    return assignments, outcomes


def assigned(chance: random.Random, unit: str, time: Any) -> Assignment:
    chances = {"a": 0.25, "b": 0.5, "c": 0.25}
    by_policy = chance.random() < 0.2
    return Assignment(
        id="x",
        request_id=f"r{chance.randrange(6)}-{unit}",
        unit_id=unit,
        time=time - timedelta(seconds=chance.choice((0, 0, 1, 1_000))),
        experiment=chance.choice((EXPERIMENT, EXPERIMENT, EXPERIMENT, "another")),
        plan_version=chance.choice((1, 2, 3)),
        variant=chance.choices("abc", (20, 2, 1))[0],
        bucket=0.5,
        propensity=0.5,
        exposed=chance.random() < 0.8,
        override=chance.random() < 0.05,
        policy_version=int(by_policy),
        propensities=chances if by_policy else {},
        segments={"os": chance.choice(("ios", "other")), "country": "DE"},
    )


def happened(chance: random.Random, unit: str, time: Any) -> UnitOutcome:
    ago = chance.choice((0, 0, 0, 1, 59.999999, 60, 60.000001, 900, 3_600, 86_400, 2 * 86_400))
    return UnitOutcome(
        id=f"{unit}-{chance.randrange(40)}",
        unit_id=unit,
        metric=chance.choice((*NAMES, "unheard-of")),
        value=chance.choice(VALUES) if chance.random() < 0.5 else chance.gauss(0, 1_000),
        time=time - timedelta(seconds=ago),
        request_id=chance.choice((None, f"r{chance.randrange(6)}-{unit}", "r1-u1")),
    )


def stored(client: Client, topic: str, topic_id: str, partition: int, records: list[Record]) -> None:
    written = [replace_value(record, partition) for record in records]
    insert(client, topic, topic_id, written)


def replace_value(record: Record, partition: int) -> Record:
    """The record as the archiver gets it: bytes, on its partition."""
    return Record(record.topic, partition, record.offset, record.appended_ms, None, msgspec.json.encode(record.event))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_batch_answer_is_what_the_definition_says(client: Client, seed: int) -> None:
    chance = random.Random(seed)
    plans = versions(chance)
    infos = {ASSIGNMENTS: TopicInfo(f"truth-assigned-{seed}", 4), OUTCOMES_BY_UNIT: TopicInfo(f"truth-happened-{seed}", 4)}
    told, offsets = {}, {}
    for partition in PARTITIONS:
        assignments, outcomes = logs(chance, RECORDS)
        stored(client, "assignments", f"truth-assigned-{seed}", partition, assignments)
        stored(client, "outcomes-by-unit", f"truth-happened-{seed}", partition, outcomes)
        ends = offsets[partition] = {
            "assignments": len(assignments) - chance.randrange(9),
            "outcomes-by-unit": len(outcomes) - chance.randrange(9),
        }
        told[partition] = truth(
            [*plans, replace(plans[0], name="another")], assignments[: ends["assignments"]], outcomes[: ends["outcomes-by-unit"]]
        )
    question = as_of(plans, infos, offsets)
    assert [metric.name for metric in question.folded] == ["mean", "before", "any", "per"]
    for metric in question.folded:
        expected = {
            (p, arm): tuple(map(str, sums)) for p in PARTITIONS for arm, sums in told[p].moments.get((EXPERIMENT, metric.name), {}).items()
        }
        assert {place: to_sums(found) for place, found in answers.moments(client, question, metric).items()} == expected
        assert len(expected) > 1
    assert answers.arms(client, question, plans) == expected_arms(told)


def expected_arms(told: dict[int, Any]) -> dict[tuple[int, str], Arm]:
    return {
        (partition, variant): Arm(**counts, segments=one.segments[EXPERIMENT].get(variant, {}))
        for partition, one in told.items()
        for variant, counts in one.arms[EXPERIMENT].items()
    }


def test_the_logs_have_everything_in_them() -> None:
    """Else the comparison above would show less than it says."""
    seen: dict[str, int] = {}
    for seed in range(SEEDS):
        chance = random.Random(seed)
        plans = versions(chance)
        for _ in PARTITIONS:
            arms = truth([*plans, replace(plans[0], name="another")], *logs(chance, RECORDS)).arms[EXPERIMENT]
            for counts in arms.values():
                for name, count in counts.items():
                    seen[name] = seen.get(name, 0) + count
            chance.randrange(9)
            chance.randrange(9)
    assert {name for name, count in seen.items() if count > 20} == {name for name in Arm.__struct_fields__ if name != "segments"}
