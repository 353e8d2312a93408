"""Gathering a report: the newest result, and what ClickHouse answers at that result's offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime

from millrace.infra.clickhouse.experiments import report_answers as ask
from millrace.infra.clickhouse.experiments.arms import arms_sql
from millrace.infra.clickhouse.experiments.as_of import AsOf
from millrace.infra.settings import Settings
from millrace.schemas.evidence import CannotTell, Kind, Moments
from millrace.schemas.experiment import Plan
from millrace.schemas.result import Finding, Result, Severity
from millrace.workers.experiments_verify import ANSWER_SECONDS, as_of, topics, versions_of, wait_for_archive
from millrace.workers.report import ages as novelty
from millrace.workers.report.archive import Archive
from millrace.workers.report.asking import Asking
from millrace.workers.report.content import QuantileEffect, Report, SegmentEffect, Spread, leading
from millrace.workers.report.history import looks, points, weights
from millrace.workers.report.quantiles import quantile_effects
from millrace.workers.report.sensitivity import crosstabs, sensitivity

VALUES_DRAWN = 1_000
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


def gather(settings: Settings, result: Result, now: datetime, wait_seconds: float) -> Report:
    """The report of a result. Raises Unavailable where the archive lacks what the result covers, or a place does not answer."""
    versions, infos = versions_of(settings, result.experiment), topics(settings)
    offsets = {int(partition): ends for partition, ends in result.offsets.items()}
    wait_for_archive(settings, infos, offsets, wait_seconds)
    with closing(Asking(settings.clickhouse, ANSWER_SECONDS)) as client:
        client.use_database()
        return gathered(client, as_of(versions, infos, offsets), versions, result, now)


def gathered(client: Asking, question: AsOf, versions: Sequence[Plan], result: Result, now: datetime) -> Report:
    """The report of a result whose records ClickHouse has. ``versions`` are the plan's, oldest first. Raises Refusal or Unavailable."""
    plan = next((one for one in versions if one.version == result.plan_version), versions[-1])
    client.note("what was seen of each arm", "Counts by partition and variant; segments' units too.", arms_sql(question, versions))
    archive = Archive(client, question, plan, result)
    with client.about("the time that the records span", "Units with the first and the newest exposure; partitions with the time seen."):
        seen = ask.seen(client, question)
    primary = leading(plan)
    by_age = tuple(novelty.ages(archive, primary, seen)) if primary else ()
    drawn = novelty.lines(by_age)
    found = novelty.findings(primary, drawn, result.alpha, result.difference) if primary else ()
    return Report(
        plan=plan,
        result=result,
        made=now,
        state=None if plan is versions[-1] else versions[-1].state,
        findings=(*_disagreements(archive), *found),
        looks=tuple(looks(archive)),
        points=tuple(points(archive, primary, seen)) if primary else (),
        weights=tuple(weights(archive)),
        spreads=tuple(_spreads(archive)),
        crosstabs=tuple(crosstabs(archive)),
        segments=tuple(_segments(archive)),
        sensitivity=tuple(sensitivity(archive, seen)),
        quantiles=tuple(_quantiles(archive)),
        ages=by_age,
        trends=tuple(novelty.trends(primary, drawn)) if primary else (),
        queries=client.queries,
    )


def _disagreements(archive: Archive) -> Iterator[Finding]:
    """Where the archive counts other units than the result: everything below the summary would be of other data."""
    for metric in archive.result.metrics:
        told = archive.judged.get(metric.name)
        if told is None:
            continue
        for name, arm in metric.arms.items():
            units = told.get(name, Moments()).n
            if units != arm.units:
                cause = f"the archive counts {units:,} units of {name} on {metric.name} at these offsets, the result {arm.units:,}:"
                cause += f" run `millrace experiments verify {archive.plan.name}`"
                numbers = {"archive": float(units), "result": float(arm.units)}
                yield Finding(
                    check="archive", severity=Severity.INVALID, cause=cause, variant=name, metric=metric.name, numbers=numbers
                )  # fmt: skip


def _spreads(archive: Archive) -> Iterator[Spread]:
    for metric in archive.folded:
        if metric.kind is not Kind.MEAN:
            continue
        values: dict[str, list[float]] = {}
        with archive.client.about(f"{metric.name}: units' values", "The values that the distribution is drawn of: some units, by hash."):
            for unit in ask.unit_values(archive.client, archive.question, metric, VALUES_DRAWN):
                values.setdefault(unit.variant, []).append(unit.value)
        with archive.client.about(f"{metric.name}: quantiles of units' values", f"In steps of {metric.step:g}, of all units."):
            found = ask.unit_quantiles(archive.client, archive.question, metric, LEVELS)
        for variant, one in found.items():
            told = dict(zip(map(str, LEVELS), one.values, strict=True))
            drawn = tuple(values.get(variant, ()))
            yield Spread(metric=metric.name, variant=variant, units=one.count, values=drawn, quantiles=told)


def _segments(archive: Archive) -> Iterator[SegmentEffect]:
    metric = leading(archive.plan)
    if metric is None:
        return
    told = archive.judged[metric.name]
    for segment in sorted({key.partition("|")[2] for key in told if "|" in key}):
        for variant in archive.treatments:
            units = archive.units(told, variant, f"|{segment}")
            found = archive.estimate(metric, told, variant, f"|{segment}")
            if isinstance(found, CannotTell) and not units:
                found = CannotTell(f"neither variant has units in {segment}")
            yield SegmentEffect(metric=metric.name, segment=segment, variant=variant, units=units, estimate=found)


def _quantiles(archive: Archive) -> Iterator[QuantileEffect]:
    for metric in archive.plan.metrics:
        if metric.kind is Kind.QUANTILE:
            with archive.client.about(
                f"{metric.name}: quantiles of outcomes", "First the quantile, then outcomes at or below it by unit, then the ends."
            ):
                yield from quantile_effects(archive.client, archive.question, metric, archive.terms)
