"""Every metric of a plan: its arms, each treatment against the control, corrected for the family, and guardrails tested for harm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Analysis, Plan, Unit
from millrace.schemas.metric import Metric, Role
from millrace.schemas.result import Comparison, MetricArm, MetricResult
from millrace.streams.judge.estimate import ALONE, Levels, Pair, Terms, p_values, told
from millrace.streams.judge.guardrail import Tolerance, family_level, harm
from millrace.streams.judge.merge import Merged
from millrace.streams.judge.mixture import Mixture
from millrace.streams.judge.past import Largest, Past
from millrace.streams.stats.arm import arm
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.multiple import corrected, interval_level
from millrace.streams.stats.sequence import rho
from millrace.streams.stats.summary import Summary, of_moments

Place = tuple[str, str]
"""Metric and variant."""
QUANTILE = CannotTell("a quantile is not a function of mergeable sums: `millrace experiments report` computes it from the archive")


class Uncorrected(Struct, frozen=True, kw_only=True):
    """One comparison before it is corrected: what is compared, how, and the effect or why there is none."""

    place: Place
    role: Role
    pair: Pair
    terms: Terms
    effect: Effect | CannotTell
    before: Largest | None
    """The mixture SPRT's largest evidence of earlier looks."""


def summary(metric: Metric, sums: Merged, key: str) -> Summary:
    """A variant's summary on a metric, or that of its segment, in the metric's own units."""
    return of_moments(sums.moments(metric.name, key), metric.step, metric.denominator_step)


def pair_of(plan: Plan, metric: Metric, sums: Merged, variant: str, segment: str = "") -> Pair:
    """A treatment and the control on a metric, overall or in one segment."""
    control, *_ = plan.variants
    keys = [f"{name}|{segment}" if segment else name for name in (control.name, variant)]
    left, right = (summary(metric, sums, key) for key in keys)
    return Pair(control=left, treatment=right, kind=metric.kind, direction=metric.direction, adjust=adjusts(plan, metric))


def adjusts(plan: Plan, metric: Metric) -> bool:
    """Whether a covariate is taken out: means and proportions of units, where the plan keeps the days before the exposure."""
    return metric.covariate_days > 0 and plan.unit is Unit.UNIT and metric.kind in (Kind.MEAN, Kind.PROPORTION)


def results(plan: Plan, sums: Merged, past: Past) -> tuple[MetricResult, ...]:
    """The metrics in the plan's order; ``past`` is what earlier looks left behind."""
    looked = list(_looked(plan, sums, past))
    levels = _levels([one for one in looked if one.role is not Role.GUARDRAIL], plan.analysis)
    levels |= _levels([one for one in looked if one.role is Role.GUARDRAIL], plan.analysis)
    guarded = sum(one.role is Role.GUARDRAIL for one in looked)
    level = family_level(plan.analysis.alpha, guarded, plan.analysis.correction)
    compared = {one.place: _compared(one, plan, levels.get(one.place, ALONE), level) for one in looked}
    least = smallest_of(plan.analysis, past)
    return tuple(
        MetricResult(
            name=metric.name,
            kind=metric.kind,
            role=metric.role,
            arms={variant.name: _arm(plan, metric, sums, variant.name) for variant in plan.variants},
            comparisons=tuple(_with_smallest(metric.name, compared[metric.name, v.name], least) for v in plan.variants[1:]),
        )
        for metric in plan.metrics
    )


def sequence_of(analysis: Analysis) -> str:
    """What the confidence sequence is known by: p-values of two of one name are of one martingale."""
    return Mixture(Difference(analysis.difference), None, rho(analysis.alpha, analysis.tuning)).name


def mixtures(plan: Plan) -> dict[str, str]:
    """The name of each metric's mixture."""
    return {metric.name: Terms.of(plan.analysis, metric).mixture.name for metric in plan.metrics}


def smallest_of(analysis: Analysis, past: Past) -> Mapping[str, float]:
    """The smallest p-values of earlier looks, where they are of the plan's confidence sequence; the smallest of two are of none."""
    return past.smallest if past.sequence in ("", sequence_of(analysis)) else {}


def _looked(plan: Plan, sums: Merged, past: Past) -> Iterator[Uncorrected]:
    for metric in plan.metrics:
        terms = Terms.of(plan.analysis, metric)
        for variant in plan.variants[1:]:
            pair = pair_of(plan, metric, sums, variant.name)
            effect = QUANTILE if metric.kind is Kind.QUANTILE else pair.effect(terms.difference)
            before = past.largest.get(f"{metric.name}/{variant.name}")
            yield Uncorrected(place=(metric.name, variant.name), role=metric.role, pair=pair, terms=terms, effect=effect, before=before)


def _levels(family: Sequence[Uncorrected], analysis: Analysis) -> dict[Place, Levels]:
    """Corrected p-values and the levels of intervals that go with them, over the tests of a family that could be made."""
    asked = [(one.place, p_values(one.effect, one.terms, one.before)) for one in family if isinstance(one.effect, Effect)]
    made = {place: found for place, found in asked if not isinstance(found, CannotTell)}
    fixed = _corrected({place: found.fixed for place, found in made.items()}, analysis)
    anytime = _corrected({place: found.anytime for place, found in made.items()}, analysis)
    mixture = _corrected({place: found.mixture for place, found in made.items() if found.mixture is not None}, analysis)
    return {
        place: Levels(
            fixed=fixed.level,
            anytime=anytime.level,
            mixture=mixture.level,
            adjusted_fixed=fixed.p_values[place],
            adjusted_anytime=anytime.p_values[place],
            adjusted_mixture=mixture.p_values.get(place),
        )
        for place in made
    }


class Corrected(Struct, frozen=True):
    """One method's p-values over a family, corrected, and the level of the intervals that go with them."""

    p_values: dict[Place, float]
    level: float


def _corrected(p_values: dict[Place, float], analysis: Analysis) -> Corrected:
    plain = list(p_values.values())
    found = dict(zip(p_values, corrected(plain, analysis.correction), strict=True))
    return Corrected(found, interval_level(plain, analysis.alpha, analysis.correction))


def _compared(one: Uncorrected, plan: Plan, levels: Levels, guard_level: float) -> Comparison:
    terms = one.terms
    estimate = one.effect if isinstance(one.effect, CannotTell) else told(one.pair, one.effect, terms, levels, one.before)
    if one.role is not Role.GUARDRAIL:
        return Comparison(variant=one.place[1], estimate=estimate)
    limit = next(metric.limit for metric in plan.metrics if metric.name == one.place[0])
    bears = Tolerance(limit=limit, level=guard_level, minimal_units=plan.analysis.minimal_units)
    found = QUANTILE if one.pair.kind is Kind.QUANTILE else harm(one.pair, terms, bears)
    return Comparison(variant=one.place[1], estimate=estimate, harm=found)


def _with_smallest(metric: str, comparison: Comparison, smallest: Mapping[str, float]) -> Comparison:
    """With the smallest always-valid p-value so far, this look's with it."""
    if isinstance(comparison.estimate, CannotTell):
        return comparison
    now = comparison.estimate.always_valid
    least = min(now.p_value, smallest.get(f"{metric}/{comparison.variant}", now.p_value))
    return replace(comparison, estimate=replace(comparison.estimate, always_valid=replace(now, smallest_p_value=least)))


def _arm(plan: Plan, metric: Metric, sums: Merged, variant: str) -> MetricArm:
    own = summary(metric, sums, variant)
    if metric.kind is Kind.QUANTILE:
        return MetricArm(units=sums.arm(variant).units, mean=QUANTILE)
    one = arm(variant, own, metric.kind)
    if isinstance(one, CannotTell):
        return MetricArm(units=own.n, mean=one)
    return MetricArm(units=own.n, mean=one.mean, variance=one.variance)
