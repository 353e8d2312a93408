"""What a report tells in time: effects as they were judged, variants as they filled, weights as they were learnt."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.infra.clickhouse.experiments import report_answers as ask
from millrace.infra.clickhouse.experiments.as_of import DAY_US
from millrace.infra.clickhouse.experiments.history import looks_sql, policies_sql
from millrace.infra.clickhouse.experiments.report_answers import Seen
from millrace.schemas.event import from_ms
from millrace.schemas.evidence import CannotTell
from millrace.schemas.metric import Metric
from millrace.streams.stats.arm import arm
from millrace.workers.report.archive import SUMS, Archive, summary
from millrace.workers.report.content import Look, Point, Weights

SHOWN = 300
POINTS = 24
MOST_POINTS = 60


def looks(archive: Archive) -> Iterator[Look]:
    """Effects as earlier results told them, up to this one."""
    with archive.client.about("effects over time", "Effect and both intervals of each result, as the judge published them."):
        rows = archive.client.rows(looks_sql(archive.plan, archive.result.time, SHOWN))
    for time_us, metric, variant, effect, low, high, always_low, always_high, units in rows:
        ends = {"fixed": (low, high), "always_valid": (always_low, always_high)}
        yield Look(time=from_ms(time_us // 1_000), metric=metric, variant=variant, effect=effect, units=units, **ends)


def points(archive: Archive, metric: Metric, seen: Seen) -> Iterator[Point]:
    """Units and the mean so far, by variant."""
    ends = points_in_time(seen)
    if not ends:
        return
    gives = SUMS + "By point in time (microseconds) in place of the partition; n are the units of the sample ratio over time."
    with archive.client.about(f"{metric.name}: cumulated", gives):
        found = ask.cumulative(archive.client, archive.question, metric, ends)
    for (end_us, variant), sums in sorted(found.items()):
        one = arm(variant, summary(metric, sums), metric.kind)
        mean = None if isinstance(one, CannotTell) else one.mean
        yield Point(time=from_ms(end_us // 1_000), variant=variant, units=sums.n, mean=mean)


def weights(archive: Archive) -> Iterator[Weights]:
    """The chances that were learnt, up to this result; none of a plan with fixed weights."""
    if archive.plan.allocation is None:
        return
    with archive.client.about("weights over time", "The chances of each version of the policy, as the judge published them."):
        rows = archive.client.rows(policies_sql(archive.plan, archive.result.time, SHOWN))
    for time_us, version, chances in rows:
        yield Weights(time=from_ms(time_us // 1_000), version=version, weights=dict(chances))


def points_in_time(seen: Seen) -> list[int]:
    """Ends of days (UTC) where exposures span several, else so many equal parts of the time that they span; microseconds.

    Of more than ``MOST_POINTS`` days, every second one, every third and so on, and the last.

    >>> points_in_time(Seen(0, 240, None))[:3]
    [11, 21, 31]
    >>> [end // DAY_US for end in points_in_time(Seen(0, 149 * DAY_US, None))][-3:]
    [144, 147, 150]
    """
    if seen.first_us is None or seen.newest_us is None:
        return []
    first, last = seen.first_us, max(seen.newest_us, seen.until_us or 0)
    if last - first <= 3 * DAY_US:
        return [first + (last - first) * part // POINTS + 1 for part in range(1, POINTS + 1)]
    days = range(last // DAY_US + 1, first // DAY_US, -max(1, -(-(last // DAY_US - first // DAY_US + 1) // MOST_POINTS)))
    return [day * DAY_US for day in reversed(days)]
