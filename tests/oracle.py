"""What the experiment fold must come to, computed from its definition: plain loops over whole logs, and no code of the fold's.

``truth(plans, assignments, outcomes)`` is of one partition: all versions of all plans in the order of the control topic, and the records
of its two inputs below the offsets that are asked for, in their order.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import accumulate
from typing import Any

import xxhash

from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Plan, State, Unit
from millrace.schemas.metric import Aggregation, Metric, Role, Source
from millrace.schemas.record import Record

DAY = 86_400_000_000


@dataclass
class Truth:
    """Experiment to metric to label to the nine sums; experiment to variant to counts; and the same for segments' units."""

    moments: dict[tuple[str, str], dict[str, tuple[int, ...]]] = field(default_factory=dict)
    arms: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    segments: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)


@dataclass
class Outcome:
    """One outcome record, with what is decided by its own log alone."""

    event: Any
    time: int
    offset: int
    appended: int
    duplicate: bool
    behind: int | None


def us(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def steps(value: float, resolution: float) -> int:
    """Half to even by fractions, of the double that one division gives."""
    quotient = Fraction(value / resolution)
    floor = math.floor(quotient)
    rest = quotient - floor
    return floor + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor % 2 == 1))


def outcomes_of(records: Sequence[Record]) -> list[Outcome]:
    times = [us(record.event.time) for record in records]
    newest = list(accumulate(times, max))
    generations = [appended // 604_800_000 for appended in accumulate((record.appended_ms for record in records), max)]
    before: dict[tuple[str, str], int] = {}
    found = []
    for at, record in enumerate(records):
        own = (record.event.unit_id, record.event.id)
        duplicate = own in before and before[own] >= generations[at] - 1
        before[own] = generations[at]
        behind = newest[at - 1] - times[at] if at else None
        found.append(Outcome(record.event, times[at], record.offset, record.appended_ms, duplicate, behind))
    return found


def aggregated(aggregation: Aggregation | None, values: list[tuple[int, int, int]]) -> int:
    """The value of ``(time, offset, steps)``; no aggregation stands for a proportion."""
    numbers = [value for _, _, value in values]
    if not values:
        return 0
    if aggregation is None:
        return int(any(numbers))
    return {
        Aggregation.SUM: sum(numbers),
        Aggregation.COUNT: len(numbers),
        Aggregation.MAX: max(numbers),
        Aggregation.FIRST: min(values)[2],
        Aggregation.LAST: max(values)[2],
        Aggregation.UNIQUE: len(set(numbers)),
    }[aggregation]


def value_of(source: Source, outcomes: Iterable[Outcome], *, proportion: bool) -> int:
    values = [(one.time, one.offset, steps(one.event.value, source.resolution)) for one in outcomes]
    if proportion:
        return aggregated(None, values)
    value = aggregated(source.aggregation, values)
    if source.cap is not None:
        cap = steps(source.cap, source.step)
        value = max(-cap, min(cap, value))
    return value


def variant_of(plan: Plan, event: Any) -> str | None:
    """By the hash: the first variant whose cumulated share is beyond the bucket."""
    subject = event.unit_id if plan.unit is Unit.UNIT else event.request_id
    place = (xxhash.xxh64_intdigest(f"{plan.salt}:variant:{subject}".encode()) >> 11) / 2**53
    if event.policy_version <= 0 and plan.spans:
        return next((span.variant for span in plan.spans if span.low <= place < span.high), None)
    by_policy = event.policy_version > 0
    weights = [event.propensities.get(one.name, 0.0) if by_policy else one.weight for one in plan.variants]
    total, upper = 0.0, 0.0
    for weight in weights:
        total += weight
    for variant, weight in zip(plan.variants, weights, strict=True):
        upper += weight
        if total and place < upper / total:
            return variant.name
    return None


class Experiment:
    """One experiment's answer."""

    def __init__(self, versions: list[Plan]) -> None:
        self.versions = versions
        running = [plan for plan in versions if plan.state is State.RUNNING]
        self.plan = running[0] if running else versions[-1]
        self.lateness = round(self.plan.analysis.lateness_seconds * 1e6)
        self.metrics = [metric for metric in self.plan.metrics if metric.kind is not Kind.QUANTILE]
        self.arms: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.segments: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.sums: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0] * 9))

    def closes_ms(self) -> float:
        ended: int | None = None
        for plan in self.versions:
            over = plan.state in (State.STOPPED, State.COMPLETED)
            ended = (us(plan.time) if ended is None else ended) if over else None
        if ended is None:
            return math.inf
        longest = max((round(metric.window_seconds * 1e6) for metric in self.metrics), default=0)
        return math.ceil(Fraction(ended + longest + self.lateness, 1000)) + 86_400_000

    def first_day(self, metric: Metric) -> int:
        """Of the first version with the metric as it is."""
        same = [plan for plan in self.versions if self.said(plan, metric.name) == self.said(self.plan, metric.name)]
        return math.ceil(Fraction(us(same[0].time) + 3_600_000_000, DAY))

    @staticmethod
    def said(plan: Plan, name: str) -> Any:
        metric = next((one for one in plan.metrics if one.name == name), None)
        if metric is None:
            return None
        parts = (metric.outcome, metric.kind, metric.aggregation, metric.resolution, metric.cap, metric.denominator)
        more = (metric.window_seconds, metric.covariate_days, plan.unit, plan.analysis.lateness_seconds, plan.segments)
        return (*parts, *more)

    def fold(self, assignments: list[Record], outcomes: list[Outcome]) -> None:
        closes = self.closes_ms()
        subjects: dict[str, list[Record]] = defaultdict(list)
        for record in assignments:
            if record.appended_ms < closes:
                event = record.event
                subjects[event.unit_id if self.plan.unit is Unit.UNIT else event.request_id].append(record)
        for subject, records in subjects.items():
            self.fold_subject(subject, records, [one for one in outcomes if one.appended < closes])

    def fold_subject(self, subject: str, records: list[Record], outcomes: list[Outcome]) -> None:
        first = records[0].event
        for record in records:
            self.arms[record.event.variant]["assignments"] += 1
        if first.override:
            self.arms[first.variant]["overridden"] += 1
            return
        self.arms[first.variant]["assigned"] += 1
        for record in records:
            versions = {plan.version: plan for plan in self.versions}
            if not record.event.override:
                plan = versions.get(record.event.plan_version)
                self.arms[record.event.variant]["underived"] += plan is None or variant_of(plan, record.event) != record.event.variant
        met = [record for record in records if record.event.exposed and not record.event.override]
        if met:
            self.expose(met, self.belonging(subject, met[0], outcomes), outcomes)

    def belonging(self, subject: str, exposure: Record, outcomes: list[Outcome]) -> list[Outcome]:
        return [
            one
            for one in outcomes
            if one.event.unit_id == exposure.event.unit_id
            and (self.plan.unit is Unit.UNIT or one.event.request_id == subject)
            and one.appended >= exposure.appended_ms - 600_000
        ]

    def late(self, outcome: Outcome) -> bool:
        return outcome.behind is not None and outcome.behind > self.lateness

    def expose(self, met: list[Record], belonging: list[Outcome], outcomes: list[Outcome]) -> None:
        exposure = met[0].event
        variant, start = exposure.variant, us(exposure.time)
        multiple = any(record.event.variant != variant for record in met)
        self.arms[variant]["exposed"] += 1
        self.arms[variant]["multiple"] += multiple
        self.count(variant, start, belonging)
        if multiple:
            return
        names = [f"{name}={value}" for name, value in exposure.segments.items()]
        for name in names:
            self.segments[variant][name] += 1
        for metric in self.metrics:
            y, z = self.values(metric, start, belonging)
            x = self.covariate(metric, start, met[0], outcomes)
            labels = [variant, *(f"{variant}|{name}" for name in names if metric.role is Role.PRIMARY)]
            for label in labels:
                change = (1, y, y * y, z, z * z, y * z, x, x * x, y * x)
                sums = self.sums[metric.name][label]
                sums[:] = [known + more for known, more in zip(sums, change, strict=True)]

    def count(self, variant: str, start: int, belonging: list[Outcome]) -> None:
        for one in belonging:
            inside = False
            for metric in self.metrics:
                sources = [metric.value, *([metric.denominator] if metric.denominator and metric.kind is Kind.RATIO else [])]
                used = any(source.outcome == one.event.metric for source in sources)
                inside = inside or (used and start <= one.time < start + round(metric.window_seconds * 1e6))
            if inside:
                self.arms[variant]["duplicates" if one.duplicate else "late" if self.late(one) else "outcomes"] += 1

    def values(self, metric: Metric, start: int, belonging: list[Outcome]) -> tuple[int, int]:
        end = start + round(metric.window_seconds * 1e6)
        counted = [one for one in belonging if start <= one.time < end and not one.duplicate and not self.late(one)]
        found = []
        for source in (metric.value, metric.denominator if metric.kind is Kind.RATIO else None):
            own = [one for one in counted if source is not None and one.event.metric == source.outcome]
            found.append(value_of(source, own, proportion=metric.kind is Kind.PROPORTION) if source is not None else 0)
        return found[0], found[1]

    def covariate(self, metric: Metric, start: int, exposure: Record, outcomes: list[Outcome]) -> int:
        if not metric.covariate_days or self.plan.unit is Unit.REQUEST or metric.kind is Kind.RATIO:
            return 0
        if metric.kind is Kind.MEAN and metric.aggregation not in (Aggregation.SUM, Aggregation.COUNT, Aggregation.MAX):
            return 0
        last = start // DAY
        first = max(last - metric.covariate_days, self.first_day(metric))
        own = [
            one
            for one in outcomes
            if one.event.unit_id == exposure.event.unit_id
            and one.event.metric == metric.outcome
            and first <= one.time // DAY < last
            and not one.duplicate
            and not self.late(one)
        ]
        return value_of(metric.value, own, proportion=metric.kind is Kind.PROPORTION)


def truth(plans: Sequence[Plan], assignments: Sequence[Record], outcomes: Sequence[Record]) -> Truth:
    """What one partition comes to."""
    versions: dict[str, list[Plan]] = defaultdict(list)
    for plan in plans:
        if plan.version == len(versions[plan.name]) + 1:
            versions[plan.name].append(plan)
    told, known = Truth(), outcomes_of(outcomes)
    for name in sorted({record.event.experiment for record in assignments}):
        one = Experiment(versions[name])
        one.fold([record for record in assignments if record.event.experiment == name], known)
        if not one.arms:
            continue
        for metric in one.metrics:
            told.moments[(name, metric.name)] = {label: tuple(sums) for label, sums in one.sums[metric.name].items()}
        counts = {variant: {key: count for key, count in arm.items() if count} for variant, arm in one.arms.items()}
        told.arms[name] = {variant: arm for variant, arm in counts.items() if arm}
        told.segments[name] = {variant: dict(found) for variant, found in one.segments.items()}
    return told
