"""The judge: a pure function of the plan, the sealed sums and what earlier looks left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from millrace.schemas import wire
from millrace.schemas.experiment import Plan
from millrace.schemas.result import Finding, MetricResult, Result, Severity
from millrace.streams.judge import decide, looks
from millrace.streams.judge.health import ratio, units, values
from millrace.streams.judge.known import Known
from millrace.streams.judge.merge import Merged, Sealed, merged
from millrace.streams.judge.metrics import mixtures, results, sequence_of, smallest_of
from millrace.streams.judge.past import Past, largest, smallest

RANK = {Severity.INVALID: 0, Severity.WARNING: 1, Severity.NOTE: 2}


class Judged(Struct, frozen=True):
    """A result, what it leaves behind for the next look, and the sums that it was made of."""

    result: Result
    past: Past
    sums: Merged


def judge(known: Known, sealed: Iterable[Sealed], past: Past, now: datetime) -> Judged:
    """Judge an experiment as of the offsets of its partitions' seals. The order of the partitions plays no part."""
    plan, sums = known.plan, merged(sealed)
    metrics = results(plan, sums, past)
    tested = ratio.sample_ratio(known, sums, past.ratio_log)
    health = tuple(sorted(_health(known, sums, metrics, tested.findings), key=_order))
    case = decide.Case(known=known, sums=sums, metrics=metrics, health=health, now=now)
    seen = looks.looked(case, past)
    if plan.analysis.looks is not None:
        health = tuple(sorted((*health, *looks.findings(plan.analysis.looks, seen.looks)), key=_order))
    case = replace(case, metrics=seen.metrics, health=health)
    decision = decide.decide(case, past.fixed)
    result = Result(
        id=result_id(plan, sums),
        experiment=plan.name,
        plan_version=plan.version,
        time=now,
        offsets=sums.offsets,
        difference=plan.analysis.difference,
        alpha=plan.analysis.alpha,
        units=sum(sums.arm(variant.name).units for variant in plan.variants),
        decision=decision,
        arms={variant.name: sums.arm(variant.name) for variant in plan.variants},
        metrics=seen.metrics,
        health=health,
        late=sum(arm.late for arm in sums.arms.values()),
    )
    kept = decision if decide.is_kept(case, decision) else past.fixed
    left = Past(
        ratio_log=tested.log_maximum,
        sequence=sequence_of(plan.analysis),
        smallest=smallest(metrics, smallest_of(plan.analysis, past)),
        largest=largest(metrics, mixtures(plan), past.largest),
        fixed=kept,
        looks=seen.looks,
        seen=seen.seen,
    )
    return Judged(result, left, sums)


def result_id(plan: Plan, sums: Merged) -> str:
    """The hash of experiment, plan version and offsets."""
    places = [f"{partition}/{topic}@{end}" for partition, ends in sums.offsets.items() for topic, end in ends.items()]
    return wire.derived_id(plan.name, str(plan.version), *places)


def _health(known: Known, sums: Merged, metrics: tuple[MetricResult, ...], tested: tuple[Finding, ...]) -> Iterator[Finding]:
    yield from tested
    if known.plan.allocation is not None:
        cause = (
            "weights follow from what was learnt: the fixed-horizon and Bayesian evidence, which take them for given, is optimistic;"
            " and where rewards change with time, arms that were dealt at different times do not compare"
        )
        if decide.chosen_by_context(known.plan):
            cause = decide.BY_CONTEXT
        yield Finding(check="adaptive", severity=Severity.NOTE, cause=cause)
    yield from units.findings(known.plan, sums)
    yield from values.findings(known.plan, sums, metrics)


def _order(finding: Finding) -> tuple[int, str, str, str]:
    """The worst first, then by name."""
    return (RANK[finding.severity], finding.check, finding.metric, finding.variant)
