"""Novelty: effects by the days since the exposure, the slope through them, and a finding in words where it is clear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from millrace.infra.clickhouse.experiments import report_answers as ask
from millrace.infra.clickhouse.experiments.as_of import DAY_US, microseconds
from millrace.infra.clickhouse.experiments.report_answers import Seen
from millrace.schemas.evidence import CannotTell
from millrace.schemas.metric import Metric
from millrace.schemas.result import Estimate, Finding, Severity
from millrace.streams.stats.novelty import Aged, Trend, trend
from millrace.workers.report import words
from millrace.workers.report.archive import SUMS, Archive
from millrace.workers.report.content import AgeEffect, AgeTrend

CHECK = "novelty"
Line = tuple[str, Trend | CannotTell]
"""A variant, and the trend of its effect."""


def ages(archive: Archive, metric: Metric, seen: Seen) -> Iterator[AgeEffect]:
    """The effect on each day since the exposure; none of a metric whose window is shorter than two days."""
    if seen.until_us is None or microseconds(metric.window_seconds) < 2 * DAY_US:
        return
    gives = SUMS + "By age in days since the exposure in place of the partition: of what happened at that age, by units seen to its end."
    with archive.client.about(f"{metric.name}: by days since the exposure", gives):
        found = ask.ages(archive.client, archive.question, metric, seen.until_us)
    for age in sorted({age for age, _ in found}):
        told = {variant: sums for (day, variant), sums in found.items() if day == age}
        for variant in archive.treatments:
            one = archive.estimate(metric, told, variant, plain=True)
            if isinstance(one, Estimate):
                yield AgeEffect(
                    metric=metric.name,
                    variant=variant,
                    day=age,
                    units=archive.units(told, variant),
                    effect=one.effect,
                    std_error=one.std_error,
                    interval=one.fixed.interval,
                )


def lines(found: Sequence[AgeEffect]) -> list[Line]:
    """The trend of each variant."""
    variants = dict.fromkeys(age.variant for age in found)
    return [(name, trend([Aged(age.day, age.effect, age.std_error) for age in found if age.variant == name])) for name in variants]


def trends(metric: Metric, drawn: Iterable[Line]) -> Iterator[AgeTrend]:
    """The trends as a report tells them."""
    for variant, line in drawn:
        if isinstance(line, CannotTell):
            yield AgeTrend(metric=metric.name, variant=variant, cannot_tell=line.reason)
        else:
            yield AgeTrend(metric=metric.name, variant=variant, slope=line.slope, std_error=line.std_error, p_value=line.p_value)


def findings(metric: Metric, drawn: Sequence[Line], alpha: float, difference: str) -> Iterator[Finding]:
    """A warning for each variant whose effect clearly changes: at ``alpha``, shared by the variants (Bonferroni)."""
    for variant, line in drawn:
        if not isinstance(line, CannotTell) and line.p_value <= alpha / len(drawn):
            numbers = {"slope_per_day": line.slope, "p_value": line.p_value, "first_day": line.first, "last_day": line.last}
            cause = f"the effect of {variant} on {metric.name} {_told(line, difference)}"
            yield Finding(check=CHECK, severity=Severity.WARNING, cause=cause, variant=variant, metric=metric.name, numbers=numbers)


def _told(line: Trend, difference: str) -> str:
    ends = (
        f"from {words.effect(line.first, difference)} on the day of the exposure to {words.effect(line.last, difference)} on the last day"
    )
    if line.first * line.last < 0.0:
        return f"turns, {ends}: the whole says nothing of what stays; judge by the later days"
    if line.fades:
        return f"fades, {ends}: part of it may be novelty; judge by the later days, or let it run for longer"
    return f"grows, {ends}: it may have to be learnt first, and the whole says too little of what stays"
