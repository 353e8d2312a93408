"""The looks of the rule ``group_sequential``: whether one is due, what it sees, and what it says of how the plan was kept.

A look is made once, when its units count, nothing forbids to conclude, and it is not too early; between looks nothing of it changes. The
shares of information are those of the units that did count, which alpha spending allows (Lan and DeMets, Biometrika 1983). The last look
spends all that is left: the one that the planned units bring, or, earlier, the maximal run time, which was planned too. An experiment that
is stopped by hand has no such look: whoever stopped it may have seen how it stood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Looks, Plan, Rule
from millrace.schemas.metric import Metric, Role
from millrace.schemas.result import Comparison, Finding, LookEvidence, MetricResult, Severity
from millrace.streams.judge.decide import Case, may_conclude
from millrace.streams.judge.estimate import Terms
from millrace.streams.judge.guardrail import family_level
from millrace.streams.judge.metrics import QUANTILE, pair_of
from millrace.streams.judge.past import Look, Past
from millrace.streams.judge.terms import out_of_time, thresholds
from millrace.streams.stats.effect import Effect
from millrace.streams.stats.group_sequential import LEAST_STEP, look

FAR = 0.05
"""A look that comes this share of all planned units too late is told of."""
Seen = dict[str, LookEvidence | CannotTell]


class Looked(Struct, frozen=True):
    """The looks that were made, what the newest of them saw, by ``metric/variant``, and the metrics with it."""

    looks: tuple[Look, ...]
    seen: Seen
    metrics: tuple[MetricResult, ...]


def looked(case: Case, past: Past) -> Looked:
    """Make the look that is due, if one is; a look at which no primary metric can be told is none, and is made again."""
    looks, made, seen = case.plan.analysis.looks, past.looks, past.seen
    if case.plan.analysis.rule is not Rule.GROUP_SEQUENTIAL or looks is None:
        return Looked(made, seen, case.metrics)
    due = _due(case, looks, past)
    if due is not None:
        found = dict(_evidence(case, looks, (*made, due)))
        primary = [metric.name for metric in case.plan.metrics if metric.role is Role.PRIMARY]
        if any(isinstance(one, LookEvidence) for place, one in found.items() if place.split("/")[0] in primary):
            made, seen = (*made, due), found
    return Looked(made, seen, tuple(_with(metric, seen) for metric in case.metrics))


def findings(looks: Looks, made: tuple[Look, ...]) -> Iterator[Finding]:
    """Looks that were not made when they were planned: the level is kept, the planned power is not."""
    wanted, before = thresholds(looks), 0
    for one in made:
        planned, numbers = wanted[one.number - 1], {"units": float(one.units), "planned_units": float(wanted[one.number - 1])}
        if one.units - planned > FAR * looks.units or (one.number - before > 1 and one.units >= planned):
            cause = f"look {one.number} of {len(wanted)} was planned at {planned} units and made at {one.units}"
            skipped = f", and took the place of {one.number - before - 1} before it" if one.number - before > 1 else ""
            yield _finding(f"{cause}{skipped}: units came faster than it was judged; boundaries follow the real share", numbers)
        elif one.units < planned:
            cause = f"the last look was planned at {planned} units and made at {one.units}, because its time was over"
            yield _finding(f"{cause}: it had less power than planned", numbers)
        before = one.number


def _finding(cause: str, numbers: dict[str, float]) -> Finding:
    return Finding(check="looks", severity=Severity.WARNING, cause=cause, numbers=numbers)


def _due(case: Case, looks: Looks, past: Past) -> Look | None:
    """The look that is to be made now: of several whose units count, the last."""
    before = past.looks[-1] if past.looks else Look(number=0, units=0)
    if before.last or not may_conclude(case, past.fixed):
        return None
    units = sum(case.sums.arm(variant.name).units for variant in case.plan.variants)
    over = out_of_time(case.known, case.now)
    number = len(looks.fractions) if over else sum(units >= wanted for wanted in thresholds(looks))
    share = units / looks.units
    if number <= before.number or share - before.units / looks.units < LEAST_STEP:
        return None
    if over or share > 1.0 - LEAST_STEP:
        return Look(number=len(looks.fractions), units=units, last=True)
    return Look(number=number, units=units)


def _evidence(case: Case, looks: Looks, made: tuple[Look, ...]) -> Iterator[tuple[str, LookEvidence | CannotTell]]:
    plan = case.plan
    for metric in plan.metrics:
        level = _level(plan, metric)
        for variant in plan.variants[1:]:
            pair = pair_of(plan, metric, case.sums, variant.name)
            effect = QUANTILE if metric.kind is Kind.QUANTILE else pair.effect(Terms.of(plan.analysis).difference)
            yield f"{metric.name}/{variant.name}", effect if isinstance(effect, CannotTell) else _seen(effect, looks, made, level)


def _level(plan: Plan, metric: Metric) -> float:
    """Each comparison's share of alpha: it must be the same at all looks, so that it cannot follow the other tests' p-values."""
    family = [one for one in plan.metrics if (one.role is Role.GUARDRAIL) == (metric.role is Role.GUARDRAIL)]
    tests = sum(one.kind is not Kind.QUANTILE for one in family) * (len(plan.variants) - 1)
    return family_level(plan.analysis.alpha, tests, plan.analysis.correction)


def _seen(effect: Effect, looks: Looks, made: tuple[Look, ...], level: float) -> LookEvidence | CannotTell:
    newest = made[-1]
    shares = [one.units / looks.units for one in made]
    told = look(effect, shares, level, looks.spending, ended=newest.last)
    if isinstance(told, CannotTell):
        return told
    return LookEvidence(
        number=newest.number,
        planned=len(looks.fractions),
        units=tuple(one.units for one in made),
        fraction=shares[-1],
        last=newest.last,
        level=level,
        effect=effect.effect,
        std_error=effect.std_error,
        z=told.z,
        boundary=told.boundary,
        crossed=told.crossed,
        nominal_alpha=told.nominal_alpha,
        interval=told.interval,
    )


def _with(metric: MetricResult, seen: Mapping[str, LookEvidence | CannotTell]) -> MetricResult:
    def shown(one: Comparison) -> Comparison:
        return replace(one, look=seen.get(f"{metric.name}/{one.variant}"))

    return replace(metric, comparisons=tuple(map(shown, metric.comparisons)))
