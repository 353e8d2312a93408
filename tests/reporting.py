"""Reports of planted experiments, judged as the judge does it, with a course in time that is made up."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from millrace.schemas.evidence import CannotTell, Kind, Moments
from millrace.schemas.experiment import Allocation, Analysis, Plan, Policy, Unit, Variant
from millrace.schemas.metric import Direction, Metric, Role
from millrace.schemas.result import Estimate, Result
from millrace.workers.report.ages import findings, lines, trends
from millrace.workers.report.content import (
    AgeEffect,
    Crosstab,
    Look,
    Point,
    QuantileEffect,
    Query,
    Report,
    SegmentEffect,
    Sensitivity,
    Spread,
    Weights,
)
from tests.judging import START, counted, experiment, judged, later, sealed, spread

PAID = Metric(name="paid", outcome="paid", kind=Kind.PROPORTION, role=Role.PRIMARY, window_seconds=7 * 86_400.0)
REVENUE = Metric(name="revenue", outcome="revenue")
REFUNDS = Metric(name="refunds", outcome="refund", role=Role.GUARDRAIL, direction=Direction.DECREASE, limit=0.02)
SLOW = Metric(name="waiting", outcome="waiting", kind=Kind.QUANTILE, quantile=0.9)
DAYS = 14


def planned(*names: str, difference: str = "relative", learnt: bool = False, **fields: Any) -> Plan:
    """A plan of these variants with a metric of each kind of role, relative or absolute, with learnt weights or without."""
    given: dict[str, Any] = {"variants": tuple(Variant(name=name) for name in names), "hypothesis": "the new model is better"} | fields
    if learnt:
        given |= {"allocation": Allocation(policy=Policy.THOMPSON, metric="paid", floor=0.05), "unit": Unit.REQUEST}
    return experiment(PAID, REVENUE, REFUNDS, SLOW, analysis=Analysis(difference=difference), **given)


def told(plan: Plan, units: int = 5_000, lost: float = 0.0) -> Report:
    """The report of a plan whose every variant has so many units, the last one fewer by the share ``lost``; each a little better."""
    names = [variant.name for variant in plan.variants]
    sizes = {name: int(units * (1.0 - lost * (name == names[-1] and len(names) > 1))) for name in names}
    paid = {name: counted(n, round(n * (0.10 + 0.012 * place))) for place, (name, n) in enumerate(sizes.items())}
    revenue = {name: spread(n, 20.0 + 0.2 * place, 8.0) for place, (name, n) in enumerate(sizes.items())}
    refunds = {name: spread(n, 1.0 + 0.3 * (place == 2), 0.5) for place, (name, n) in enumerate(sizes.items())}
    result = judged(plan, sealed({"paid": paid, "revenue": revenue, "refunds": refunds}), after_seconds=DAYS * 86_400.0)
    ages = tuple(_ages(names[1:], units))
    primary = plan.metrics[0]
    return Report(
        plan=plan,
        result=result,
        made=later(DAYS * 86_400.0 + 5),
        findings=tuple(findings(primary, lines(ages), 0.05, result.difference)),
        looks=tuple(_looks(result)),
        points=tuple(_points(paid, sizes)),
        weights=tuple(_weights(names)) if plan.allocation else (),
        spreads=tuple(_spreads(names)),
        crosstabs=(Crosstab(metric="paid", rows={name: (one.total, one.n - one.total) for name, one in paid.items()}, **_tested()),),
        segments=tuple(_segments(result, names[1:])),
        sensitivity=tuple(_sensitivity(names[1:])),
        quantiles=tuple(_quantiles(names[1:])),
        ages=ages,
        trends=tuple(trends(primary, lines(ages))),
        queries=(Query(title="paid: as it was judged", gives="Sums `as they are`.", sql="SELECT 1 < 2 -- ``` & <script>"),),
    )


def nothing(plan: Plan) -> Report:
    """Of an experiment that has seen nobody."""
    return Report(plan=plan, result=judged(plan, sealed({"paid": {}}, arms={})), made=later(0.0))


def _looks(result: Result) -> list[Look]:
    """Every result an earlier one was, less sure of it."""
    found = []
    for metric in result.metrics:
        for comparison in metric.comparisons:
            if isinstance(comparison.estimate, Estimate):
                effect, error = comparison.estimate.effect, comparison.estimate.std_error
                for part in range(1, 49):
                    wide, at = error * math.sqrt(48 / part), effect + error * math.sin(part) * math.sqrt(48 / part) * 0.7
                    found.append(
                        Look(
                            time=START + timedelta(days=DAYS * part / 48),
                            metric=metric.name,
                            variant=comparison.variant,
                            effect=at,
                            fixed=(at - 2 * wide, at + 2 * wide),
                            always_valid=(at - 3.2 * wide, at + 3.2 * wide),
                            units=part * 100,
                        )
                    )
    return found


def _points(paid: dict[str, Moments], sizes: dict[str, int]) -> list[Point]:
    return [
        Point(
            time=START + timedelta(days=day),
            variant=name,
            units=round(units * day / DAYS * (1 + 0.02 * math.sin(day + place) / day)),
            mean=paid[name].total / max(1, paid[name].n) * (1 + 0.1 * math.cos(day + place) / day),
        )
        for day in range(1, DAYS + 1)
        for place, (name, units) in enumerate(sizes.items())
    ]


def _weights(names: list[str]) -> list[Weights]:
    """The last one wins the more of them the longer it runs."""
    found = []
    for version in range(1, 31):
        best = 0.05 + (1.0 - 0.05 * len(names)) * version / 30
        rest = (1.0 - best) / max(1, len(names) - 1)
        found.append(
            Weights(time=START + timedelta(hours=9 * version), version=version, weights=dict.fromkeys(names[:-1], rest) | {names[-1]: best})
        )
    return found


def _spreads(names: list[str]) -> list[Spread]:
    """A long tail, and half of the units with nothing."""
    found = []
    for place, name in enumerate(names):
        values = [0.0 if at % 2 else 10.0 * (1.0 + place / 10) * -math.log(1 - (at + 0.5) / 400) for at in range(400)]
        told = {"0.5": 0.0, "0.9": sorted(values)[360], "0.99": sorted(values)[396]}
        found.append(Spread(metric="revenue", variant=name, units=5_000, values=(*values, 5_000.0), quantiles=told))
    return found


def _segments(result: Result, treatments: list[str]) -> list[SegmentEffect]:
    found: list[SegmentEffect] = []
    for country, shift in (("DE", 0.01), ("FR", -0.02), ("other", None)):
        for comparison in result.metrics[0].comparisons if result.metrics else ():
            one: Estimate | CannotTell = comparison.estimate
            if shift is None or isinstance(one, CannotTell):
                one = CannotTell("the control has 1 unit; a comparison needs at least 2 in each arm")
            else:
                one = replace(one, effect=one.effect + shift)
            found.append(SegmentEffect(metric="paid", segment=f"country={country}", variant=comparison.variant, units=900, estimate=one))
    return found


def _sensitivity(treatments: list[str]) -> list[Sensitivity]:
    asked: list[Sensitivity] = []
    for name in treatments:
        cut = {"name": "values cut at the 99% quantile", "why": "a few large values could carry the mean"}
        asked.append(Sensitivity(metric="revenue", variant=name, **cut, effect=0.01, interval=(-0.02, 0.04), p_value=0.4))
        asked.append(Sensitivity(metric="revenue", variant=name, name="Mann-Whitney", why="ranks", cannot_tell="all units have one value"))
        asked.append(Sensitivity(metric="paid", variant=name, name="chi-square", why="counts", p_value=0.00001))
    return asked


def _quantiles(treatments: list[str]) -> list[QuantileEffect]:
    return [
        QuantileEffect(
            metric="waiting",
            variant=name,
            quantile=0.9,
            control=1.5,
            treatment=1.4,
            effect=-0.0667,
            interval=(-0.1, -0.03),
            p_value=0.001,
        )
        for name in treatments
    ]


def _ages(treatments: list[str], units: int) -> list[AgeEffect]:
    """The first treatment's effect fades, the others' do not."""
    return [
        AgeEffect(
            metric="paid",
            variant=name,
            day=day,
            units=units - day * units // 10,
            effect=0.2 - 0.028 * day * (place == 0),
            std_error=0.02 + 0.002 * day,
            interval=(0.2 - 0.028 * day * (place == 0) - 0.04 - 0.004 * day, 0.2 - 0.028 * day * (place == 0) + 0.04 + 0.004 * day),
        )
        for day in range(7)
        for place, name in enumerate(treatments)
    ]


def _tested() -> dict[str, Any]:
    return {"statistic": 12.5, "degrees": 1, "p_value": 0.0004, "cramers_v": 0.035}
