"""Sensitivity: the same question asked in other ways, at the same offsets."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.infra.clickhouse.experiments import report_answers as ask
from millrace.infra.clickhouse.experiments.as_of import DAY_US
from millrace.infra.clickhouse.experiments.moments import Variation
from millrace.infra.clickhouse.experiments.report_answers import Seen
from millrace.schemas.evidence import CannotTell, Kind, Moments
from millrace.schemas.metric import Metric, Role
from millrace.schemas.result import Estimate
from millrace.streams.judge.metrics import adjusts
from millrace.streams.stats.contingency import Contingency, chi_square
from millrace.streams.stats.interval import fixed
from millrace.streams.stats.stratify import Stratum, post_stratified
from millrace.workers.report.archive import Archive, Told, summary
from millrace.workers.report.content import Crosstab, Sensitivity

CAP_LEVEL = 0.99


def sensitivity(archive: Archive, seen: Seen) -> Iterator[Sensitivity]:
    """Every metric but guardrails, without outliers, without the first day, and by other tests."""
    for metric in archive.folded:
        if metric.role is Role.GUARDRAIL:
            continue
        for name, why, told in _variations(archive, metric, seen):
            for variant in archive.treatments:
                yield _asked(metric, variant, name, why, archive.estimate(metric, told, variant))
        for variant in archive.treatments:
            yield from _other_tests(archive, metric, variant)


def crosstabs(archive: Archive) -> Iterator[Crosstab]:
    """Of each proportion, how many units of each variant did it and how many did not, with Pearson's test over all variants."""
    for metric in archive.folded:
        if metric.kind is Kind.PROPORTION:
            told = archive.judged[metric.name]
            rows = {name: _did(told.get(name, Moments())) for name in (archive.control, *archive.treatments)}
            found = chi_square(list(rows.values()))
            yield _tabulated(metric, rows, found)


def _tabulated(metric: Metric, rows: dict[str, tuple[int, int]], found: Contingency | CannotTell) -> Crosstab:
    if isinstance(found, CannotTell):
        return Crosstab(metric=metric.name, rows=rows, cannot_tell=found.reason)
    return Crosstab(
        metric=metric.name,
        rows=rows,
        statistic=found.statistic,
        degrees=found.degrees,
        p_value=found.p_value,
        cramers_v=found.cramers_v,
    )


def _did(sums: Moments) -> tuple[int, int]:
    """Units that did it, and units that did not."""
    return sums.total, sums.n - sums.total


def _variations(archive: Archive, metric: Metric, seen: Seen) -> Iterator[tuple[str, str, Told]]:
    if metric.kind in (Kind.MEAN, Kind.RATIO):
        name = f"values cut at the {CAP_LEVEL:.0%} quantile"
        told = archive.moments(metric, f"{metric.name}: {name}", "Sensitivity.", Variation(cap_level=CAP_LEVEL, segments=False))
        yield name, "a few large values could carry the mean", told
    if seen.first_us is not None and seen.newest_us is not None and seen.newest_us - seen.first_us > DAY_US:
        name, later = "without the first day's units", Variation(exposed_from_us=seen.first_us + DAY_US, segments=False)
        yield name, "the first to come may not be like the others", archive.moments(metric, f"{metric.name}: {name}", "Sensitivity.", later)


def _other_tests(archive: Archive, metric: Metric, variant: str) -> Iterator[Sensitivity]:
    told = archive.judged[metric.name]
    if adjusts(archive.plan, metric):
        plain = archive.estimate(metric, told, variant, plain=True)
        yield _asked(metric, variant, "without the covariate", "the adjustment should narrow, not move", plain)
    if metric.kind is Kind.MEAN:
        yield _ranked(archive, metric, variant)
    if metric.kind is Kind.PROPORTION:
        yield _counted(archive, metric, variant)
    for field in archive.plan.segments if metric.role is Role.PRIMARY else ():
        yield _stratified(archive, metric, variant, field)


def _ranked(archive: Archive, metric: Metric, variant: str) -> Sensitivity:
    with archive.client.about(f"{metric.name}: Mann-Whitney, {variant}", "Units of both variants, U, and the two-sided p-value."):
        found = ask.rank_test(archive.client, archive.question, metric, archive.control, variant)
    return _tested_only(metric, variant, ("Mann-Whitney", "ranks do not know how large a value is"), found)


def _counted(archive: Archive, metric: Metric, variant: str) -> Sensitivity:
    told = archive.judged[metric.name]
    found = chi_square([_did(told.get(name, Moments())) for name in (archive.control, variant)])
    return _tested_only(metric, variant, ("chi-square", "counts need no variance to be estimated"), found)


def _tested_only(metric: Metric, variant: str, asked: tuple[str, str], found: Contingency | ask.RankTest | CannotTell) -> Sensitivity:
    name, why = asked
    if isinstance(found, CannotTell):
        return Sensitivity(metric=metric.name, variant=variant, name=name, why=why, cannot_tell=found.reason)
    return Sensitivity(metric=metric.name, variant=variant, name=name, why=why, p_value=found.p_value)


def _stratified(archive: Archive, metric: Metric, variant: str, field: str) -> Sensitivity:
    """Strata weigh what they are of the units of both arms."""
    told = archive.judged[metric.name]
    names = sorted({key.partition("|")[2] for key in told if key.partition("|")[2].startswith(f"{field}=")})
    pairs = [(name, told.get(f"{archive.control}|{name}", Moments()), told.get(f"{variant}|{name}", Moments())) for name in names]
    strata = [
        Stratum(weight=float(left.n + right.n), control=summary(metric, left), treatment=summary(metric, right), name=name)
        for name, left, right in pairs
        if left.n + right.n
    ]
    name, why = f"post-stratified by {field}", "takes out what the segments differ in"
    effect = post_stratified(strata, metric.kind, archive.terms.difference) if strata else CannotTell(f"no unit has a {field}")
    if isinstance(effect, CannotTell):
        return Sensitivity(metric=metric.name, variant=variant, name=name, why=why, cannot_tell=effect.reason)
    found = fixed(effect, archive.terms.alpha)
    return Sensitivity(
        metric=metric.name, variant=variant, name=name, why=why, effect=effect.effect, interval=found.interval, p_value=found.p_value
    )


def _asked(metric: Metric, variant: str, name: str, why: str, found: Estimate | CannotTell) -> Sensitivity:
    if isinstance(found, CannotTell):
        return Sensitivity(metric=metric.name, variant=variant, name=name, why=why, cannot_tell=found.reason)
    told = found.fixed
    return Sensitivity(
        metric=metric.name, variant=variant, name=name, why=why, effect=found.effect, interval=told.interval, p_value=told.p_value
    )
