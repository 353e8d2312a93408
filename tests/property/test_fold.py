"""The experiment fold is a set function of the log: however outcomes come and polls cut them, it is what the oracle says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.schemas.assignment import Assignment
from millrace.schemas.event import from_ms
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Analysis, Plan, Span, State, Unit, Variant
from millrace.schemas.metric import Aggregation, Metric, Role, Source
from millrace.schemas.moments import Arm, from_sums
from millrace.schemas.outcome import UnitOutcome
from millrace.schemas.record import Emit
from millrace.schemas.topics import ASSIGNMENTS, OUTCOMES_BY_UNIT
from millrace.streams.experiment.fold import Fold
from tests.driver import Driver, Log
from tests.models import control
from tests.oracle import Experiment, truth

INPUTS = (ASSIGNMENTS, OUTCOMES_BY_UNIT)
DAY_MS = 86_400_000
START_MS = 1_700_000_000_000 // (7 * DAY_MS) * (7 * DAY_MS) + 5 * DAY_MS
"""Two days before ids of a new generation."""
DAY_US = DAY_MS * 1_000
EPOCH = from_ms(0)
NAMES = ("revenue", "visits")
SUBJECTS = 6
WINDOWS = (60.0, 3_600.0, 86_400.0, 3 * 86_400.0, 0.1 + 0.2)
LATENESS = (0.0, 60.0, 7_200.0, 4 * 86_400.0)
SHORT_MS = (0, 0, 1, 1_000, 30_000)
GRACE_MS = (299_999, 300_000, 599_999, 600_000)
LONG_MS = (3_600_000, 5 * 3_600_000, DAY_MS, DAY_MS, 7 * DAY_MS)
AGGREGATIONS = st.sampled_from(Aggregation)
RESOLUTIONS = st.sampled_from([1e-6, 0.5, 1.0, 1e-9])
CAPS = st.sampled_from([None, None, 3.0, 0.7])


@st.composite
def metrics(draw: st.DrawFn, number: int) -> Metric:
    kind = draw(st.sampled_from([Kind.MEAN, Kind.MEAN, Kind.PROPORTION, Kind.RATIO, Kind.QUANTILE]))
    below = Source(outcome=draw(st.sampled_from(NAMES)), aggregation=draw(AGGREGATIONS), resolution=draw(RESOLUTIONS), cap=draw(CAPS))
    return Metric(
        name=f"m{number}",
        outcome=draw(st.sampled_from(NAMES)),
        kind=kind,
        role=draw(st.sampled_from(Role)),
        aggregation=draw(AGGREGATIONS),
        resolution=draw(RESOLUTIONS),
        cap=draw(CAPS),
        denominator=below if kind is Kind.RATIO else None,
        window_seconds=draw(st.sampled_from(WINDOWS)),
        covariate_days=draw(st.sampled_from([0, 1, 3])),
    )


P = TypeVar("P", Metric, Source)


def fitting(part: P) -> P:
    """Without what no plan may say of what a number is made of."""
    if part.aggregation is Aggregation.COUNT:
        part = msgspec.structs.replace(part, resolution=1e-6)
    return part if part.cap is None or part.cap >= part.step else msgspec.structs.replace(part, cap=None)


def allowed(metric: Metric, unit: Unit) -> Metric:
    """A metric without what no plan may say of it."""
    fields: dict[str, Any] = {"denominator": fitting(metric.denominator) if metric.denominator else None}
    if metric.kind in (Kind.PROPORTION, Kind.QUANTILE):
        fields |= {"aggregation": Aggregation.SUM, "cap": None}
    if metric.kind is Kind.QUANTILE:
        fields |= {"role": Role.SECONDARY}
    adds_up = metric.kind is Kind.MEAN and metric.aggregation in (Aggregation.SUM, Aggregation.COUNT, Aggregation.MAX)
    if unit is Unit.REQUEST or not (adds_up or metric.kind is Kind.PROPORTION):
        fields |= {"covariate_days": 0}
    return fitting(msgspec.structs.replace(metric, **fields))


@st.composite
def measured(draw: st.DrawFn, unit: Unit, number: int) -> tuple[Metric, ...]:
    """So many metrics that a plan may have together: one of them decides."""
    found = [allowed(draw(metrics(place)), unit) for place in range(number)]
    if found and not any(metric.role is Role.PRIMARY for metric in found):
        kind = Kind.MEAN if found[0].kind is Kind.QUANTILE else found[0].kind
        found[0] = msgspec.structs.replace(found[0], kind=kind, role=Role.PRIMARY)
    return tuple(found)


@st.composite
def plans(draw: st.DrawFn, name: str) -> list[Plan]:
    """A draft, its first running version, perhaps an end. Metrics that change once it has begun change nothing."""
    unit = draw(st.sampled_from([Unit.UNIT, Unit.UNIT, Unit.REQUEST]))
    spans = (Span(low=0.0, high=0.25, variant="b"), Span(low=0.25, high=1.0, variant="a"))
    first = Plan(
        name=name,
        version=1,
        state=State.DRAFT,
        time=from_ms(START_MS - draw(st.sampled_from([1, 25, 73])) * 3_600_000) + timedelta(microseconds=draw(st.integers(-1, 1))),
        salt=name,
        unit=unit,
        variants=(Variant(name="a", weight=1.0), Variant(name="b", weight=2.0)),
        spans=draw(st.sampled_from([(), (), spans])),
        segments={"country": ("DE",)},
        metrics=draw(measured(unit, draw(st.sampled_from([3, 2, 1, 0])))),
        analysis=Analysis(lateness_seconds=draw(st.sampled_from(LATENESS))),
    )
    versions = [first]
    changed = draw(measured(unit, 2)) if draw(st.booleans()) else first.metrics
    other = draw(measured(unit, 2))
    states = [State.DRAFT, State.RUNNING, *draw(st.sampled_from([[], [State.PAUSED, State.RUNNING], [State.STOPPED, State.COMPLETED]]))]
    for state in states:
        versions.append(
            msgspec.structs.replace(
                versions[-1],
                version=len(versions) + 1,
                state=state,
                metrics=changed if State.RUNNING not in [plan.state for plan in versions] else draw(st.sampled_from([changed, other])),
                time=versions[-1].time + timedelta(hours=draw(st.sampled_from([0, 1, 25]))),
            )
        )
    return versions


class Traffic:
    """Records of few subjects, at and beside each edge that the definition has: of windows, days, lateness, grace, ids and the end."""

    def __init__(self, log: Log, chance: random.Random, told: dict[str, list[Plan]]) -> None:
        self._log, self._chance, self._told = log, chance, told
        self._newest = START_MS * 1_000
        self._exposed: dict[str, int] = {}
        self._ids: list[tuple[str, str]] = []
        closing = [Experiment(versions).closes_ms() for versions in told.values()]
        self._closing = sorted({int(at) + beside for at in closing if at < math.inf for beside in (-1, 0, 1)})
        log.now_ms = START_MS

    def fill(self, records: int) -> None:
        for number in range(records):
            event = self._assignment(number) if self._chance.random() < 0.3 else self._outcome(number)
            self._log.append(ASSIGNMENTS.name if isinstance(event, Assignment) else OUTCOMES_BY_UNIT.name, event.unit_id, event)
            self._pass(number / records)

    def _pass(self, done: float) -> None:
        """Let time pass; towards the end up to where experiments close."""
        self._log.advance(self._chance.choice(self._chance.choices([SHORT_MS, GRACE_MS, LONG_MS], [70, 25, 5])[0]))
        later = [at for at in self._closing if at >= self._log.now_ms]
        if later and done > 0.8 and self._chance.random() < 0.3:
            self._log.now_ms = later[0]

    def _assignment(self, number: int) -> Assignment:
        chance = self._chance
        plan = chance.choice(self._told[chance.choice(sorted(self._told))])
        policy = chance.random() < 0.2
        time = from_ms(self._log.now_ms - chance.choice([0, 0, 1, 5_000, 700_000, 8 * DAY_MS]))
        unit = f"u{chance.randrange(SUBJECTS)}"
        self._exposed.setdefault(unit, round(time.timestamp() * 1e6))
        return Assignment(
            id=f"a{number}",
            request_id=f"r{chance.randrange(SUBJECTS)}",
            unit_id=unit,
            time=time,
            experiment=plan.name,
            plan_version=plan.version,
            variant=chance.choice("aaaaaaaabc"),
            bucket=0.5,
            propensity=0.5,
            exposed=chance.random() < 0.8,
            override=chance.random() < 0.05,
            policy_version=int(policy),
            propensities={"a": 0.3, "b": 0.7} if policy else {},
            segments={"country": chance.choice(["DE", "other"])},
        )

    def _outcome(self, number: int) -> UnitOutcome:
        chance = self._chance
        unit, own = chance.choice(self._ids) if self._ids and chance.random() < 0.3 else (f"u{chance.randrange(SUBJECTS)}", f"o{number}")
        self._ids.append((unit, own))
        now, beside = self._log.now_ms * 1_000, chance.choice([0, 0, -1, 1])
        window, late = round(chance.choice(WINDOWS) * 1e6), round(chance.choice(LATENESS) * 1e6)
        exposed = self._exposed.get(unit, now + 1_000)
        day = exposed // DAY_US * DAY_US
        time = chance.choice([now, now, self._newest - late, exposed, exposed + window, day, day - DAY_US, day - 3 * DAY_US])
        self._newest = max(self._newest, time + beside)
        return UnitOutcome(
            id=own,
            unit_id=unit,
            metric=chance.choice([*NAMES, "revenue", "other"]),
            value=chance.choice([0.0, 1.0, -1.0, 0.25, 2.5, 1e15, -3.7, 0.0000005, 123.456]),
            time=EPOCH + timedelta(microseconds=time + beside),
            request_id=chance.choice([None, f"r{chance.randrange(SUBJECTS)}"]),
        )


def told_last(driver: Driver) -> dict[int, dict[str, Any]]:
    """The newest record of each key, by group, as a compacted topic keeps it."""
    found: dict[int, dict[str, Any]] = {}
    for number, facts in driver.emitted.items():
        found[number] = {fact.key: fact.event for fact in facts if isinstance(fact, Emit)}
    return found


def folded(driver: Driver) -> dict[int, Any]:
    """The newest moments and arms of each group, in the oracle's words."""
    answers = {}
    for number, events in told_last(driver).items():
        moments = {
            (event.experiment, event.metric): {
                label: tuple(msgspec.structs.astuple(from_sums(sums))) for label, sums in event.moments.items()
            }
            for event in events.values()
            if event.metric
        }
        arms = {event.experiment: event.arms for event in events.values() if not event.metric}
        if events:
            answers[number] = (
                moments,
                {name: {v: counts(arm) for v, arm in found.items()} for name, found in arms.items()},
                segments(arms),
            )
    return answers


def counts(arm: Arm) -> dict[str, int]:
    whole = msgspec.structs.asdict(arm)
    return {name: count for name, count in whole.items() if name != "segments" and count}


def segments(arms: dict[str, dict[str, Arm]]) -> dict[str, dict[str, dict[str, int]]]:
    return {name: {variant: dict(arm.segments) for variant, arm in found.items() if arm.segments} for name, found in arms.items()}


def expected(log: Log, versions: Sequence[Plan]) -> dict[int, Any]:
    answers = {}
    for number in range(log.partitions):
        told = truth(versions, log.read(ASSIGNMENTS.name, number), log.read(OUTCOMES_BY_UNIT.name, number))
        if told.arms:
            answers[number] = (told.moments, told.arms, told.segments)
    return answers


def fold_of(versions: Sequence[Plan]) -> Fold:
    fold = Fold()
    for plan in versions:
        assert fold.observe(control(plan))
    return fold


def drained(driver: Driver, chance: random.Random, versions: Sequence[Plan]) -> None:
    """Poll in cuts of any size, restart in between, and let enough time pass for the last word."""
    while driver.poll(chance.choice([1, 2, 3, 7, 50])):
        driver.clock_ms += chance.choice([0, 1, 300, 1_000, 40_000])
        if chance.random() < 0.2:
            driver.restart(fold_of(versions))
    driver.clock_ms += 2_000
    driver.poll()


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.integers(0, 2**32))
def test_the_fold_is_what_its_definition_says(data: st.DataObject, seed: int) -> None:
    told = {name: data.draw(plans(name)) for name in ("checkout", "search")[: data.draw(st.integers(1, 2))]}
    versions = [plan for same in told.values() for plan in same]
    chance, log = random.Random(seed), Log(partitions=2)
    Traffic(log, chance, told).fill(data.draw(st.sampled_from([300, 100, 10])))
    driver = Driver(log, fold_of(versions), INPUTS)
    drained(driver, chance, versions)
    assert folded(driver) == expected(log, versions)
