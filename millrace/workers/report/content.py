"""What a report says, before it has any form: the object that ``--json`` prints and that pages and charts are made of."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Plan, State
from millrace.schemas.metric import Metric, Role
from millrace.schemas.result import Estimate, Finding, Interval, Result


class Look(Struct, frozen=True, kw_only=True):
    """The effect as it stood in an earlier result."""

    time: datetime
    metric: str
    variant: str
    effect: float
    fixed: Interval
    always_valid: Interval
    units: int


class Point(Struct, frozen=True, kw_only=True):
    """One variant up to a point in time: units exposed so far, and the mean over them of what had happened by then."""

    time: datetime
    variant: str
    units: int
    mean: float | None


class Weights(Struct, frozen=True, kw_only=True):
    """The chances that a learnt policy gave from a time on."""

    time: datetime
    version: int
    weights: dict[str, float]


class Spread(Struct, frozen=True, kw_only=True):
    """How one metric's values are spread over the units of a variant: some of them, drawn by hash, and exact quantiles."""

    metric: str
    variant: str
    units: int
    values: tuple[float, ...]
    quantiles: dict[str, float]


class SegmentEffect(Struct, frozen=True, kw_only=True):
    """The primary metric's effect among the units of one segment."""

    metric: str
    segment: str
    variant: str
    units: int
    estimate: Estimate | CannotTell


class Sensitivity(Struct, frozen=True, kw_only=True):
    """The same question asked in another way: would the answer be another?"""

    metric: str
    variant: str
    name: str
    why: str
    effect: float | None = None
    interval: Interval | None = None
    p_value: float | None = None
    cannot_tell: str = ""


class QuantileEffect(Struct, frozen=True, kw_only=True):
    """A quantile of single outcomes, which no merged sums can tell: from the archive, with units as clusters."""

    metric: str
    variant: str
    quantile: float
    control: float | None = None
    treatment: float | None = None
    effect: float | None = None
    interval: Interval | None = None
    p_value: float | None = None
    cannot_tell: str = ""


class Crosstab(Struct, frozen=True, kw_only=True):
    """How many units of each variant did it and how many did not, and Pearson's test of whether variants have to do with it."""

    metric: str
    rows: dict[str, tuple[int, int]]
    statistic: float | None = None
    degrees: int | None = None
    p_value: float | None = None
    cramers_v: float | None = None
    cannot_tell: str = ""


class AgeEffect(Struct, frozen=True, kw_only=True):
    """The effect on what happened in one day since the exposure: falling from day to day, it was novelty."""

    metric: str
    variant: str
    day: int
    units: int
    effect: float
    std_error: float
    interval: Interval


class AgeTrend(Struct, frozen=True, kw_only=True):
    """How a variant's effect changes from day to day since the exposure: the weighted slope, and its two-sided p-value."""

    metric: str
    variant: str
    slope: float | None = None
    std_error: float | None = None
    p_value: float | None = None
    cannot_tell: str = ""


class Query(Struct, frozen=True, kw_only=True):
    """A statement that gives some of the report's numbers again: which, and how they follow from its rows."""

    title: str
    gives: str
    sql: str


class Report(Struct, frozen=True, kw_only=True):
    """All of it. Everything is as of the result's offsets, and ``plan`` is the version that it was judged by."""

    plan: Plan
    result: Result
    made: datetime
    state: State | None = None
    """Where the experiment stands now, by its newest version; None where that is the one that it was judged by."""
    findings: tuple[Finding, ...] = ()
    """What the report found, beside the health of the result."""
    looks: tuple[Look, ...] = ()
    points: tuple[Point, ...] = ()
    weights: tuple[Weights, ...] = ()
    spreads: tuple[Spread, ...] = ()
    crosstabs: tuple[Crosstab, ...] = ()
    segments: tuple[SegmentEffect, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()
    quantiles: tuple[QuantileEffect, ...] = ()
    ages: tuple[AgeEffect, ...] = ()
    trends: tuple[AgeTrend, ...] = ()
    queries: tuple[Query, ...] = ()

    @property
    def control(self) -> str:
        """The first variant."""
        return self.plan.variants[0].name

    @property
    def treatments(self) -> list[str]:
        """The other variants, in the plan's order."""
        return [variant.name for variant in self.plan.variants[1:]]

    @property
    def primary(self) -> str:
        """The metric that is told in time, by segment and by age; empty for an experiment without metrics."""
        metric = leading(self.plan)
        return metric.name if metric else ""


def leading(plan: Plan) -> Metric | None:
    """The first primary metric that is not a quantile, else the first of all that is none; None where there is none."""
    folded = [metric for metric in plan.metrics if metric.kind is not Kind.QUANTILE]
    return next((metric for metric in folded if metric.role is Role.PRIMARY), folded[0] if folded else None)
