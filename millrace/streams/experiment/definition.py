"""A plan's metrics, made ready to fold: which outcomes go where, in which window, and what a unit contributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Plan, Unit
from millrace.schemas.metric import Aggregation, Metric, Role, Source
from millrace.streams.bandits.ranges import Ranges
from millrace.streams.experiment.digest import digest, digest_of_all
from millrace.streams.experiment.folded import folded
from millrace.streams.experiment.subject import Exposure
from millrace.streams.experiment.value import AGGREGATORS, DAY_US, PRESENCE, Aggregator, Update

T = TypeVar("T")
Contribution = tuple[int, int, int]
"""What a unit adds to a metric: its value y, a ratio's denominator z, the covariate x."""
HOUR_US = 3_600_000_000
COVARIATES = frozenset({Aggregation.SUM, Aggregation.COUNT, Aggregation.MAX})


class Slot(Struct, frozen=True):
    """One number that is kept of a unit: its place among the exposure's values, and how it is made and read."""

    index: int
    metric: int
    outcome: str
    aggregator: Aggregator
    resolution: float
    cap: int | None
    """In steps: a value is cut to [-cap, cap]."""
    unique: bool
    window_us: int

    def read(self, state: object) -> int:
        """The unit's value, capped."""
        value = self.aggregator.read(state)
        return value if self.cap is None else max(-self.cap, min(self.cap, value))


class Covariate(Struct, frozen=True):
    """A slot over whole days before the exposure: ``days`` of them, none before ``first_day`` (days since the epoch)."""

    slot: Slot
    key: str
    """Which of a unit's day sums it begins with."""
    days: int
    first_day: int

    def covers(self, exposed_day: int, day: int) -> bool:
        """Whether a day counts for a unit that was exposed on another."""
        return exposed_day - self.days <= day < exposed_day and day >= self.first_day


class Folded(Struct, frozen=True):
    """One metric: its slots, and whether its moments are kept by segment too."""

    name: str
    digest: str
    segmented: bool
    value: Slot
    denominator: Slot | None
    covariate: Slot | None
    ranges: Ranges | None
    """Of a contextual policy's reward: where the features of a request are, over which it is summed too."""

    def contribution(self, values: Sequence[object]) -> Contribution:
        """What a unit with these states adds."""
        value, below, before = self.value, self.denominator, self.covariate
        return (
            value.read(values[value.index]),
            below.read(values[below.index]) if below is not None else 0,
            before.read(values[before.index]) if before is not None else 0,
        )


Into = tuple[int, int, int, float, Update | None]
"""Slot index, metric index, window in microseconds, resolution, and how the state is updated; None for unique."""


class Definition(Struct, frozen=True):
    """All that the fold needs of one experiment's plan. It does not change once the experiment has begun."""

    name: str
    by_request: bool
    lateness_us: int
    longest_us: int
    """The longest window."""
    metrics: tuple[Folded, ...]
    into: dict[str, tuple[Into, ...]]
    """Outcome name to the slots of values and denominators."""
    before: dict[str, tuple[Covariate, ...]]
    """Outcome name to covariates."""
    slots: int
    digest: str
    ranges: Ranges | None
    """Of the metric that a contextual policy learns from, if there is one."""

    def contribution(self, metric: int, exposure: Exposure) -> Contribution | None:
        """What a subject adds to a metric; None where it does not count."""
        if exposure.variant is None or exposure.multiple:
            return None
        return self.metrics[metric].contribution(exposure.values)


class Wanted(Struct, frozen=True):
    """Day sums that some plan wants of each unit: of which outcomes, in which steps, without which late ones, for how many days."""

    key: str
    outcome: str
    resolution: float
    lateness_us: int
    days: int
    first_day: int
    """Earlier ones are wanted by nobody."""


def lateness_us(plan: Plan) -> int:
    """How much older than the newest before it an outcome may be."""
    return round(plan.analysis.lateness_seconds * 1e6)


def has_covariate(plan: Plan, metric: Metric) -> bool:
    """Whether what a unit did before its exposure is kept for a metric."""
    fits = metric.kind is Kind.PROPORTION or (metric.kind is Kind.MEAN and metric.aggregation in COVARIATES)
    return fits and metric.covariate_days > 0 and plan.unit is Unit.UNIT


def wanted(plan: Plan, known_us: Mapping[str, int]) -> list[Wanted]:
    """The day sums that a plan wants. ``known_us`` is when a metric with each digest was first written."""
    late = lateness_us(plan)
    return [
        Wanted(
            _key(metric, late),
            metric.outcome,
            metric.resolution,
            late,
            metric.covariate_days,
            first_day(known_us[digest(plan, metric)]),
        )
        for metric in folded(plan)
        if has_covariate(plan, metric)
    ]


def first_day(known_us: int) -> int:
    """The first whole day of which a fold that follows the plans surely knew that it was wanted: from an hour after it was written.

    >>> first_day(0), first_day(23 * HOUR_US), first_day(23 * HOUR_US + 1)
    (1, 1, 2)
    """
    return -(-(known_us + HOUR_US) // DAY_US)


def define(plan: Plan, known_us: Mapping[str, int]) -> Definition:
    """Make a plan ready. ``known_us`` is when a metric with each digest was first written."""
    slots: list[Slot] = []
    metrics, before = [], []
    for number, metric in enumerate(folded(plan)):
        one = _folded(plan, metric, number, slots)
        metrics.append(one)
        if one.covariate is not None:
            before.append(Covariate(one.covariate, _key(metric, lateness_us(plan)), metric.covariate_days, first_day(known_us[one.digest])))
    after = [slot for slot in slots if slot.window_us]
    return Definition(
        name=plan.name,
        by_request=plan.unit is Unit.REQUEST,
        lateness_us=lateness_us(plan),
        longest_us=max((slot.window_us for slot in slots), default=0),
        metrics=tuple(metrics),
        into={name: tuple(map(_into, same)) for name, same in _by_outcome((slot.outcome, slot) for slot in after).items()},
        before={name: tuple(same) for name, same in _by_outcome((one.slot.outcome, one) for one in before).items()},
        slots=len(slots),
        digest=digest_of_all(plan),
        ranges=next((one.ranges for one in metrics if one.ranges is not None), None),
    )


def _folded(plan: Plan, metric: Metric, number: int, slots: list[Slot]) -> Folded:
    """One metric's slots, appended to ``slots``."""
    window_us = round(metric.window_seconds * 1e6)
    presence = metric.kind is Kind.PROPORTION
    value = _slot(metric.value, number, window_us, slots, presence=presence)
    denominator = metric.denominator if metric.kind is Kind.RATIO else None
    below = _slot(denominator, number, window_us, slots) if denominator is not None else None
    covariate = _slot(metric.value, number, 0, slots, presence=presence) if has_covariate(plan, metric) else None
    features = plan.learnt_over(metric.name)
    ranges = Ranges(features) if features else None
    return Folded(metric.name, digest(plan, metric), metric.role is Role.PRIMARY, value, below, covariate, ranges)


def _slot(source: Source, metric: int, window_us: int, slots: list[Slot], *, presence: bool = False) -> Slot:
    slot = Slot(
        index=len(slots),
        metric=metric,
        outcome=source.outcome,
        aggregator=PRESENCE if presence else AGGREGATORS[source.aggregation],
        resolution=source.resolution,
        cap=None if presence else _cap(source),
        unique=not presence and source.aggregation is Aggregation.UNIQUE,
        window_us=window_us,
    )
    slots.append(slot)
    return slot


def _cap(source: Source) -> int | None:
    """In steps; none where that is beyond any value."""
    if source.cap is None or source.cap / source.step > 1e300:
        return None
    return round(source.cap / source.step)


def _into(slot: Slot) -> Into:
    return (slot.index, slot.metric, slot.window_us, slot.resolution, None if slot.unique else slot.aggregator.update)


def _by_outcome(pairs: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for name, one in pairs:
        found.setdefault(name, []).append(one)
    return found


def _key(metric: Metric, late_us: int) -> str:
    """Day sums are shared by all metrics that agree in these."""
    return f"{late_us}/{metric.resolution!r}/{metric.outcome}"
